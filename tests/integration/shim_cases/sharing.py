"""Several descriptors, threads and processes on one connection."""

from .client import *


def duplicates():
    s = connected("echo")
    copy = socket.socket(fileno=os.dup(s.fileno()))
    high = socket.socket(fileno=fcntl.fcntl(s, fcntl.F_DUPFD_CLOEXEC, 50))
    s.send(b"one")
    out = {"copy": receive_all(copy, 3).hex()}
    s.close()
    copy.send(b"two")
    out["high"] = receive_all(high, 3).hex()
    copy.close()
    high.send(b"three")
    return {**out, "last": receive_all(high, 5).hex(), "peer": high.getpeername()[1] == PORT}


def dup2_over_it():
    s = connected("echo")
    other, theirs = socket.socketpair()
    os.dup2(other.fileno(), s.fileno())
    s.send(b"unix")
    out = {"unix": theirs.recv(9).hex(), "domain": s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)}
    again = connected("say 5")
    os.dup2(again.fileno(), other.fileno())
    again.close()
    return {**out, "moved": receive_all(other, 5).hex()}


def fork_shares():
    s = connected("echo")
    out = {"child": in_child(lambda: s.send(b"child"))}
    out["parent"] = receive_all(s, 5).hex()
    s.send(b"parent")

    def read_and_peek():
        os._exit(s.recv(6, socket.MSG_PEEK).decode() == "parent")

    out["peeked in child"] = in_child(read_and_peek)
    return {**out, "kept": receive_all(s, 6).hex()}


def exec_inherits():
    s = connected("later 50 hello", "close")
    s.set_inheritable(True)
    program = ("import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); "
               "print(s.recv(5, socket.MSG_WAITALL).decode(), s.getpeername()[0], s.type, end='')")
    return {"output": output_of([sys.executable, "-c", program, str(s.fileno())], s)}


def exec_of_a_plain_program():
    s = connected("later 1 hello", "close")
    return {"output": output_of(["cat"], s, stdin=s).encode().hex()}


def output_of(command, s, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, pass_fds=[s.fileno()], timeout=20, text=True, **options)
    return done.stdout


def passed_over_a_unix_socket():
    s = connected("echo")
    a, b = socket.socketpair()
    socket.send_fds(a, [b"x"], [s.fileno()])
    _, fds, _, _ = socket.recv_fds(b, 1, 1)
    s.close()
    received = socket.socket(fileno=fds[0])
    received.send(b"hello")
    return {"back": receive_all(received, 5).hex(), "family": received.family}


def threads_read_and_write():
    s = connected("echo")
    back = []
    reader = threading.Thread(target=lambda: back.append(receive_all(s, 5)))
    reader.start()
    time.sleep(0.05)
    s.send(b"hello")
    reader.join(5)
    return {"back": back[0].hex() if back else None}


def many_at_once():
    results = []

    def client(number):
        s = connected("echo")
        data = pattern(10000 + number)
        s.sendall(data)
        results.append(receive_all(s, len(data)) == data)
        s.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return {"equal": results.count(True)}
