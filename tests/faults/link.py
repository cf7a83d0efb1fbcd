#!/usr/bin/env python3
"""The network between csdfs and csd-target: packets pass between two TUN devices, one in each one's network namespace,
and whatever may happen to packets happens to them here, in user space, on any kernel.

    link.py FD FD SEED    the descriptors of the devices

A line of JSON on standard input says what happens from then on, and is answered with the counts of what has happened:

    loss, duplicate, reorder    the share of packets, 0 to 1; a reordered one is late by `late` seconds (0.005)
    delay                       seconds for every packet, each way
    damage                      the share of packets with a bit turned, which TCP's checksum finds
    corrupt                     the same with the checksum made right, which is what digests are for
    down                        nothing passes
    cut                         the TCP connections seen until now are no more: their packets are answered with RST
"""

import heapq
import json
import os
import random
import select
import struct
import sys
import time

BATCH = 64  # packets from one device before the other has its turn
LATE = 0.005
ACK, RST = 0x10, 0x04


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Packet:
    """An IPv4 packet; `tcp` is where its TCP header begins, None if it has none."""

    def __init__(self, data):
        self.data = bytearray(data)
        is_tcp = self.data[0] >> 4 == 4 and self.data[9] == 6
        self.tcp = (self.data[0] & 15) * 4 if is_tcp else None

    @property
    def payload(self):
        return self.tcp + (self.data[self.tcp + 12] >> 4) * 4

    @property
    def connection(self):
        """The same for both directions."""
        source, sink = self.data[12:16], self.data[16:20]
        ports = self.data[self.tcp:self.tcp + 2], self.data[self.tcp + 2:self.tcp + 4]
        return frozenset((bytes(source + ports[0]), bytes(sink + ports[1])))

    def turn_bit(self, rng, hide):
        """Turns a bit of the payload; `hide` makes the checksum right again (RFC 1624). False if it has no payload."""
        if self.tcp is None or self.payload == len(self.data):
            return False
        at = rng.randrange(self.payload, len(self.data))
        bit = 1 << rng.randrange(8)
        before = self.data[at]
        self.data[at] ^= bit
        if hide:
            shift = 0 if (at - self.tcp) % 2 else 8
            old, = struct.unpack_from(">H", self.data, self.tcp + 16)
            total = (~old & 0xFFFF) + (~(before << shift) & 0xFFFF) + ((before ^ bit) << shift)
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            struct.pack_into(">H", self.data, self.tcp + 16, ~total & 0xFFFF)
        return True

    def reset(self):
        """The RST with which the other side would answer a packet of a connection that it does not know."""
        source, sink = self.data[12:16], self.data[16:20]
        sport, dport, _, ack = struct.unpack_from(">HHII", self.data, self.tcp)
        segment = struct.pack(">HHIIBBHHH", dport, sport, ack, 0, 0x50, RST, 0, 0, 0)
        total = checksum(sink + source + struct.pack(">HH", 6, len(segment)) + segment)
        segment = segment[:16] + struct.pack(">H", total) + segment[18:]
        header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0, sink, source)
        return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + segment

    def has_ack(self):
        return self.data[self.tcp + 13] & ACK and not self.data[self.tcp + 13] & RST


class Link:
    def __init__(self, ends, seed):
        self.ends = ends
        self.rng = random.Random(seed)
        self.faults = {}
        self.seen, self.dead = set(), set()  # TCP connections
        self.queue, self.order = [], 0       # what is late: when it is due, order of arrival, to whom, packet
        self.counts = dict.fromkeys(("passed", "lost", "doubled", "reordered", "damaged", "corrupted", "cut"), 0)

    def change(self, faults):
        self.faults = faults
        if faults.get("cut"):
            self.counts["cut"] += len(self.seen)
            self.dead |= self.seen
            self.seen = set()

    def happens(self, fault):
        return fault in self.faults and self.rng.random() < self.faults[fault]

    def take(self, source, data):
        """A packet from the device `source`."""
        packet, sink = Packet(data), self.ends[1 - self.ends.index(source)]
        if packet.tcp is not None:
            if packet.connection in self.dead:
                if packet.has_ack():
                    self.send(source, packet.reset())
                return
            self.seen.add(packet.connection)
        if self.faults.get("down") or self.happens("loss"):
            self.counts["lost"] += 1
            return
        if self.happens("damage"):
            self.counts["damaged"] += packet.turn_bit(self.rng, hide=False)
        if self.happens("corrupt"):
            self.counts["corrupted"] += packet.turn_bit(self.rng, hide=True)
        wait = self.faults.get("delay", 0)
        if self.happens("reorder"):
            self.counts["reordered"] += 1
            wait += self.faults.get("late", LATE)
        copies = 1 + self.happens("duplicate")
        self.counts["doubled"] += copies - 1
        for _ in range(copies):
            self.send_later(sink, packet.data, wait)

    def send_later(self, sink, data, wait):
        if not wait:
            return self.send(sink, data)
        self.order += 1
        heapq.heappush(self.queue, (time.monotonic() + wait, self.order, sink, bytes(data)))
        return None

    def send(self, sink, data):
        try:
            os.write(sink, data)
            self.counts["passed"] += 1
        except OSError:  # the queue is full, or the device down: a network loses it
            self.counts["lost"] += 1

    def deliver(self):
        """Sends what is due; gives the milliseconds until the next is, None if nothing waits."""
        while self.queue:
            wait = self.queue[0][0] - time.monotonic()
            if wait > 0:
                return max(1, int(wait * 1000))
            _, _, sink, data = heapq.heappop(self.queue)
            self.send(sink, data)
        return None


def main():
    ends, seed = [int(sys.argv[1]), int(sys.argv[2])], int(sys.argv[3])
    link = Link(ends, seed)
    poll = select.poll()
    for fd in (*ends, 0):
        poll.register(fd, select.POLLIN)
    for fd in ends:
        os.set_blocking(fd, False)
    while True:
        for fd, _ in poll.poll(link.deliver()):
            if fd == 0:
                line = sys.stdin.readline()
                if not line:
                    return
                link.change(json.loads(line))
                print(json.dumps(link.counts), flush=True)
                continue
            for _ in range(BATCH):
                try:
                    link.take(fd, os.read(fd, 65536))
                except BlockingIOError:
                    break
                except OSError:  # the device is gone, and soon we
                    return


if __name__ == "__main__":
    main()
