#!/usr/bin/env python3
"""The programs on the mount, in one process that may be killed or stopped as any: an upload and a download that go on
until they are told to finish, streams that are idle, and more opens on demand.

    client.py MOUNT PORTS    PORTS: JSON, the service's ports by their use (service.py)

A line of JSON on standard input names a method of Client and its arguments, a line on standard output is its result.
The end of standard input is the end: whatever is open then, the kernel closes.
"""

import contextlib
import errno
import hashlib
import json
import os
import resource
import select
import sys
import threading
import time

from content import BLOCK, block

PACE = 0.004  # seconds between blocks: 16 MB/s each way leave the machine time for the faults


def name_of(error):
    return errno.errorcode.get(error.errno, str(error.errno))


class Transfer(threading.Thread):
    """One direction of bytes. `end` is how it ended, None while it goes on: "closed" (by us), "eof", or an errno."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd = fd
        self.bytes = 0
        self.sha = hashlib.sha256()
        self.end = self.at = None
        self.finish = threading.Event()

    def run(self):
        try:
            end = self.move()
        except OSError as error:
            end = name_of(error)
        self.at = time.monotonic()
        self.end = end
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def report(self):
        digest = self.sha.hexdigest() if self.end else None
        return {"bytes": self.bytes, "digest": digest, "end": self.end, "at": self.at}


class Upload(Transfer):
    def move(self):
        number = 0
        while not self.finish.is_set():
            view = memoryview(block("up", number))
            while view:
                count = os.write(self.fd, view)
                self.bytes += count
                view = view[count:]
            number += 1
            time.sleep(PACE)
        return "closed"


class Download(Transfer):
    def move(self):
        while data := os.read(self.fd, BLOCK):
            self.bytes += len(data)
            self.sha.update(data)
        return "eof"


class Client:
    def __init__(self, mount, ports):
        self.mount, self.ports = mount, ports
        self.transfers, self.idle, self.more = {}, [], []

    def open(self, use, host="127.0.0.1", port=None, flags=0):
        return os.open(f"{self.mount}/tcp/{host}:{port or self.ports[use]}", os.O_RDWR | flags)

    def start(self, idle):
        """Opens idle streams and sets both transfers going."""
        self.idle = [self.open("idle") for _ in range(idle)]
        self.transfers = {"up": Upload(self.open("up")), "down": Download(self.open("down"))}
        for transfer in self.transfers.values():
            transfer.start()

    def moved(self):
        """The bytes of that transfer that has fewer."""
        return min(transfer.bytes for transfer in self.transfers.values())

    def finish(self):
        """The upload is to close after the block it is at."""
        self.transfers["up"].finish.set()

    def report(self):
        return {name: transfer.report() for name, transfer in self.transfers.items()}

    def echo(self):
        """A byte to each idle stream and back: how many errors of which kind came of it."""
        return self._each(self._say) or self._each(self._hear)

    def idle_ends(self, seconds):
        """Waits until all idle streams have ended: how many in which way, "open" those that have not, and when."""
        deadline, left, ends = time.monotonic() + seconds, set(self.idle), {}
        poll = select.poll()
        for fd in left:
            poll.register(fd, select.POLLIN)
        while left and (wait := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(wait * 1000):
                end = self._end(fd)
                ends[end] = ends.get(end, 0) + 1
                poll.unregister(fd)
                left.discard(fd)
        if left:
            ends["open"] = len(left)
        return {"ends": ends, "at": time.monotonic()}

    def close_idle(self):
        for fd in self.idle + self.more:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.idle, self.more = [], []

    def open_more(self, count):
        """Opens as many idle streams more, and keeps them: how many failed in which way, and the longest open."""
        errors, longest = {}, 0
        for _ in range(count):
            begun = time.monotonic()
            try:
                self.more.append(self.open("idle"))
            except OSError as error:
                errors[name_of(error)] = errors.get(name_of(error), 0) + 1
            longest = max(longest, time.monotonic() - begun)
        return {"errors": errors, "longest": longest}

    def open_hanging(self, targets):
        """Begins opens that nobody answers; `targets` are pairs of a host and a port."""
        for host, port in targets:
            self.more.append(self.open(None, host, port, os.O_NONBLOCK))

    def storm(self, seconds, threads=8):
        """Opens, uses and closes, or only opens and closes, from several threads: how many went wrong in which way."""
        errors, until = {}, time.monotonic() + seconds

        def blow(number):
            while time.monotonic() < until:
                number += 1
                try:
                    fd = self.open("storm")
                    try:
                        if number % 2:
                            os.write(fd, b"storm")
                        if number % 4 == 1:
                            os.read(fd, 5)
                    finally:
                        os.close(fd)
                except OSError as error:
                    errors[name_of(error)] = errors.get(name_of(error), 0) + 1

        running = [threading.Thread(target=blow, args=(number,), daemon=True) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return errors

    def _each(self, use):
        errors = {}
        for fd in self.idle:
            try:
                wrong = use(fd)
            except OSError as error:
                wrong = name_of(error)
            if wrong:
                errors[wrong] = errors.get(wrong, 0) + 1
        return errors

    @staticmethod
    def _say(fd):
        os.write(fd, b"?")

    @staticmethod
    def _hear(fd):
        return None if os.read(fd, 1) == b"?" else "eof"

    @staticmethod
    def _end(fd):
        try:
            return "data" if os.read(fd, 1) else "eof"
        except OSError as error:
            return name_of(error)


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    client = Client(sys.argv[1], json.loads(sys.argv[2]))
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(getattr(client, request.pop("do"))(**request)), flush=True)
    os._exit(0)  # threads may wait for ever


if __name__ == "__main__":
    main()
