#!/usr/bin/env python3
"""Many programs that do everything at once, badly, and are killed at any moment: csdfs must come out as it went in."""

import os
import random
import signal
import subprocess
import sys
import time

from harness.case import CsdTest, main
from harness.descriptors import read_exactly
from harness.process import process_state, spawn
from harness.servers import Server, closed_port
from harness.settings import SLOW
from harness.wait import eventually

SECONDS = 6

# One unruly program: argv are a seed, the mount files to use. Every error is fine, wrong bytes are not.
PROGRAM = r"""
import fcntl, os, random, select, signal, sys, threading
rng = random.Random(int(sys.argv[1]))
files = sys.argv[2:]
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
held = []

def act():
    choice = rng.random()
    if choice < 0.25 or not held:
        flags = os.O_RDWR | (os.O_NONBLOCK if rng.random() < 0.5 else 0)
        held.append(os.open(rng.choice(files), flags))
        if len(held) > 3:
            os.close(held.pop(0))
        return
    fd = rng.choice(held)
    if choice < 0.45:
        set_nonblocking(fd, rng.random() < 0.9)
        os.write(fd, bytes(int(2 ** rng.uniform(0, 18))))
    elif choice < 0.70:
        set_nonblocking(fd, rng.random() < 0.9)
        data = os.read(fd, int(2 ** rng.uniform(0, 18)))
        if data.strip(b"\0"):
            os._exit(99)
    elif choice < 0.80:
        poll = select.poll()
        poll.register(fd, select.POLLIN | select.POLLOUT)
        poll.poll(rng.choice((0, 1, 5)))
    elif choice < 0.85:
        held.append(os.dup(fd))
    elif choice < 0.90:
        fcntl.ioctl(fd, rng.choice((0x8020C501, 0x8088C502, 0x8004C504, 0x8004C506, 0x8004C507)), bytearray(256))
    elif choice < 0.93:
        fcntl.ioctl(fd, 0x4004C505, rng.choice((0, 1, 2)).to_bytes(4, "little"))
    elif choice < 0.95:
        os.fsync(fd)
    else:
        held.remove(fd)
        os.close(fd)

def set_nonblocking(fd, on):
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK if on else flags & ~os.O_NONBLOCK)

def run():
    while True:
        try:
            act()
        except (OSError, ValueError, IndexError):
            pass

for _ in range(2):  # threads share the descriptors, and close them under each other
    threading.Thread(target=run, daemon=True).start()
run()
"""


class Chaos(CsdTest):
    def unruly_peer(self, seed):
        """A server in the drive that echoes, sends, stalls, ends and resets as it likes; zero bytes only."""
        rng = random.Random(seed)

        def serve(peer):
            peer.sock.settimeout(0.2)
            try:
                while True:
                    choice = rng.random()
                    if choice < 0.5:
                        peer.sock.sendall(peer.sock.recv(65536) or b"\0")
                    elif choice < 0.8:
                        peer.sock.sendall(bytes(int(2 ** rng.uniform(0, 17))))
                    elif choice < 0.95:
                        time.sleep(rng.uniform(0, 0.05))
                    elif choice < 0.98:
                        return
                    else:
                        return peer.reset()
            except OSError:
                return

        return self.server(serve)

    def run_chaos(self, device, programs):
        drive = self.mount(device)
        server, echo = self.unruly_peer(1), self.server(Server.echo)
        files = [drive.file(server.port), drive.file(server.port), drive.file(echo.port), drive.file(closed_port())]
        descriptors = len(os.listdir(f"/proc/{drive.pid}/fd"))
        rng = random.Random(2)
        running, seed = [], 0
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            while len(running) < programs:
                seed += 1
                running.append(spawn([sys.executable, "-S", "-c", PROGRAM, str(seed), *files],
                                     stdin=subprocess.DEVNULL))
                self.addCleanup(running[-1].kill)
            time.sleep(rng.uniform(0, 0.1))
            victim = running.pop(rng.randrange(len(running)))
            victim.send_signal(rng.choice((signal.SIGKILL, signal.SIGTERM)))
            try:
                self.assertLess(victim.wait(2 * SLOW), 0, "killed by the signal, having seen no wrong byte")
            except subprocess.TimeoutExpired:
                self.fail(f"pid {victim.pid} does not die: state {process_state(victim.pid)}")
            self.assertIsNone(drive.process.poll(), drive.log()[-4000:])
        for program in running:
            program.kill()
            program.wait(2 * SLOW)
        return drive, echo, descriptors

    def settled(self, drive, descriptors):
        eventually(lambda: drive.text("connections").count("\n") == 1, 40, "no connection is left")
        self.assertEqual(drive.counter("connections in use"), 0)
        self.assertEqual(len(os.listdir(f"/proc/{drive.pid}/fd")), descriptors)

    def test_behaving_drive_comes_out_clean(self):
        drive, echo, descriptors = self.run_chaos("emu:", 8)
        self.settled(drive, descriptors)
        self.assertEqual(drive.counter("abandoned commands"), 0)
        fd = self.fd(drive.open(echo.port))
        os.write(fd, b"fine")
        self.assertEqual(read_exactly(fd, 4), b"fine")

    def test_drive_with_few_relays_comes_out_clean(self):
        drive, _, descriptors = self.run_chaos("emu:?relays=4", 8)
        self.settled(drive, descriptors)

    def test_shipped_firmware_survives(self):
        drive, _, _ = self.run_chaos("emu:?dialect=v1", 4)
        self.assertIn("device:", drive.text("status"))


if __name__ == "__main__":
    main()
