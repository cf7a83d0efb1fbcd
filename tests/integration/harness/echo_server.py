#!/usr/bin/env python3
"""An echo server for thousands of connections, in a process of its own: prints its port and serves until its
standard input ends. One thread and epoll."""

import resource
import select
import socket
import sys


def allow_many_descriptors(enough=16640):
    """As many as the hard limit has, which root may raise."""
    hard = max(enough, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main():
    allow_many_descriptors()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)

    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(sys.stdin, select.EPOLLIN)
    peers = {}
    while True:
        for fd, _ in poll.poll():
            if fd == sys.stdin.fileno():
                return
            if fd == listener.fileno():
                accept_all(listener, poll, peers)
                continue
            data = receive(peers[fd])
            if data:
                peers[fd].sendall(data)  # a few bytes for each that came in: there is always room
            else:
                peers.pop(fd).close()


def accept_all(listener, poll, peers):
    while True:
        try:
            peer, _ = listener.accept()
        except BlockingIOError:
            return
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peers[peer.fileno()] = peer
        poll.register(peer, select.EPOLLIN)


def receive(peer):
    try:
        return peer.recv(65536)
    except ConnectionError:
        return b""


if __name__ == "__main__":
    main()
