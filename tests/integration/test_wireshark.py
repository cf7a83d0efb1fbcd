#!/usr/bin/env python3
"""NVMe/TCP between csdfs and csd-target as Wireshark reads it: a third reading of the specification, which finds no
PDU malformed, and computes the digests that they carry."""

import collections
import os
import signal
import subprocess

from harness.case import main
from harness.settings import SLOW
from harness.target import NvmeTcpTest, Target, uri
from harness.wait import Call, eventually

IC_REQ, IC_RESP, COMMAND, RESPONSE, TO_DRIVE, TO_HOST, READY = "0", "1", "4", "5", "6", "7", "9"  # types of PDUs
GOOD = "1"  # of the states of a digest
ERROR = str(0x800000)  # of the severities of what Wireshark remarks
SIZE = 300_000  # each way: more than capsules hold


class Wireshark(NvmeTcpTest):
    def capture(self, port):
        """Starts dumpcap on the loopback, and returns when it sees every packet of a port."""
        self.file = self.scratch() + "/capture"
        self.dumpcap = self.process(["dumpcap", "-q", "-i", "lo", "-f", f"tcp port {port}", "-B", "64", "-w", self.file])

        def started():
            while not (line := self.dumpcap.stderr.readline()).startswith(b"File: "):
                self.assertTrue(line, "dumpcap has ended")

        Call(started).result()

    def decoded(self, port):
        """Of the PDUs captured: how often each value of a field occurs, by field."""
        eventually(lambda: os.path.getsize(self.file) > 2 * SIZE, 10, "dumpcap writes what it has seen")
        self.dumpcap.send_signal(signal.SIGINT)
        self.dumpcap.wait(10 * SLOW)
        fields = ("nvme-tcp.type", "nvme-tcp.hdgst.status", "nvme-tcp.ddgst.status", "_ws.malformed",
                  "_ws.expert.severity")
        lines = subprocess.run(
            ["tshark", "-r", self.file, "-d", f"tcp.port=={port},nvme-tcp", "-o", "nvme-tcp.check_hdgst:TRUE",
             "-o", "nvme-tcp.check_ddgst:TRUE", "-Y", "nvme-tcp", "-T", "fields",
             *(word for field in fields for word in ("-e", field))],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, timeout=50 * SLOW).stdout.decode()
        counts = {field: collections.Counter() for field in fields}
        for line in lines.splitlines():
            for field, values in zip(fields, line.split("\t")):
                counts[field].update(filter(None, values.split(",")))
        return counts

    def agrees(self, digests):
        self.target = Target(self)
        port = self.target.address[1]
        self.capture(port)
        self.drive = self.mount(uri(self.target.address, *([f"digests={','.join(digests)}"] if digests else [])))
        self.echo(SIZE)
        counts = self.decoded(port)

        kinds = counts["nvme-tcp.type"]
        self.assertEqual(set(kinds), {IC_REQ, IC_RESP, COMMAND, RESPONSE, TO_DRIVE, TO_HOST, READY})
        self.assertFalse(counts["_ws.malformed"])
        self.assertNotIn(ERROR, counts["_ws.expert.severity"])
        headers = sum(kinds.values()) - kinds[IC_REQ] - kinds[IC_RESP] if "header" in digests else 0
        self.assertEqual(counts["nvme-tcp.hdgst.status"], collections.Counter({GOOD: headers} if headers else {}))
        data = counts["nvme-tcp.ddgst.status"]
        if "data" in digests:
            self.assertEqual(set(data), {GOOD})
            self.assertGreaterEqual(data[GOOD], kinds[TO_DRIVE] + kinds[TO_HOST])  # and capsules
        else:
            self.assertFalse(data)

    def test_without_digests(self):
        self.agrees(())

    def test_header_digests(self):
        self.agrees(("header",))

    def test_data_digests(self):
        self.agrees(("data",))

    def test_both_digests(self):
        self.agrees(("header", "data"))


if __name__ == "__main__":
    main()
