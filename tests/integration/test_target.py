#!/usr/bin/env python3
"""csd-target, seen by a host that is written from the specification (harness.nvme_tcp): what the controller
says, the relay protocol over it, and that whatever a host does wrong ends its own connection and no other."""

import contextlib
import errno
import os
import re
import socket
import struct
import subprocess
import time

from harness import nvme_tcp, nvme_tls
from harness.case import CsdTest, main
from harness.descriptors import read_exactly
from harness.nvme_tcp import (CAP, CC, CMD, CSTS, DDGST, DISCOVERY, ENABLE, FABRICS, H2C_DATA, HDGST, IC_REQ, LAST,
                              R2T, VS, Ended, Host, Queue)
from harness.process import cpu_ticks, spawn
from harness.relay import Relay, call
from harness.servers import Server, closed_port, pattern
from harness.settings import CSDFS, SCALE, SLOW, TARGET
from harness.target import NQN, Target, uri
from harness.wait import Call, eventually

HOST = "nqn.2014-08.org.nvmexpress:uuid:test"
HOSTILE = int(2000 * SCALE)  # commands of each hostile host


class TargetTest(CsdTest):
    OPTIONS = ()

    def setUp(self):
        self.target = Target(self, *self.OPTIONS)

    def host(self, digests=0, nqn=NQN, **connect):
        return Host(self, self.target.address, nqn, digests, **connect)

    def queue(self, digests=0, **options):
        return Queue(self, self.target.address, digests, **options)

    def echo(self):
        return self.server(Server.echo).port

    def assert_serves(self):
        """Another host can do everything."""
        self.assertEqual(self.host().admin.identify(1).status, 0)

    def assert_ended(self, queue, error, where=None):
        with self.assertRaises(Ended) as ended:
            for _ in range(1000):
                queue.step()
        self.assertEqual(ended.exception.error, error)
        if where is not None:
            self.assertEqual(ended.exception.where, where)
        # Then the connection closes.
        with self.assertRaises(Ended):
            queue.receive(1)


class Handshake(TargetTest):
    def test_properties_are_what_linux_wants(self):
        queue = self.queue()
        self.assertEqual(queue.connect_command(NQN).status, 0)
        cap = queue.get_property(CAP, wide=True)
        self.assertEqual(cap & 0xFFFF, 127)
        self.assertEqual(cap >> 37 & 0xFF, 1)
        self.assertGreater(cap >> 24 & 0xFF, 0)
        self.assertEqual(queue.get_property(VS), 0x00010400)
        self.assertEqual(queue.get_property(CSTS), 0)
        self.assertEqual(queue.identify(1).status, nvme_tcp.SEQUENCE_ERROR)  # not enabled yet
        self.assertEqual(queue.set_property(CC, ENABLE), 0)
        self.assertEqual(queue.get_property(CC), ENABLE)
        self.assertEqual(queue.get_property(CSTS), 1)
        self.assertEqual(queue.set_property(CC, ENABLE | 1 << 14), 0)
        self.assertEqual(queue.get_property(CSTS) >> 2 & 3, 2)
        self.assertEqual(queue.set_property(CC, ENABLE & ~1), 0)
        self.assertEqual(queue.get_property(CSTS), 0)

    def test_identify_controller_is_what_linux_wants(self):
        host = self.host()
        page = host.admin.identify(1).data
        number = lambda offset, form: struct.unpack_from("<" + form, page, offset)[0]
        self.assertEqual(page[24:64].decode().rstrip(), "nvsock csd")
        self.assertEqual(number(78, "H"), host.cntlid)
        self.assertEqual(2 ** number(77, "B") * 4096, 131072)
        self.assertEqual(number(80, "I"), 0x00010400)
        self.assertTrue(number(76, "B") & 2)
        self.assertNotEqual(number(320, "H"), 0)
        self.assertNotEqual(number(514, "H"), 0)
        self.assertEqual(number(516, "I"), 1)
        self.assertEqual(number(536, "I") & 3, 1)
        self.assertEqual(page[768:1024].rstrip(b"\0").decode(), NQN)
        self.assertEqual(number(1792, "I") * 16, 64 + 8192)
        self.assertEqual(number(1796, "I"), 1)
        self.assertEqual(number(1800, "H"), 0)

    def test_namespace_pages_agree(self):
        admin = self.host().admin
        self.assertEqual(struct.unpack_from("<II", admin.identify(2).data), (1, 0))
        page = admin.identify(0, nsid=1).data
        blocks = struct.unpack_from("<Q", page)[0]
        self.assertEqual(blocks << page[130], 64 << 20)
        descriptor = admin.identify(3, nsid=1).data
        self.assertEqual(descriptor[:2], b"\x03\x10")
        self.assertEqual(descriptor[4:20], page[104:120])
        self.assertEqual(descriptor[20:24], bytes(4))
        self.assertEqual(admin.identify(6).status, 0)
        self.assertEqual(admin.identify(0, nsid=2).status, 0x00B)

    def test_other_admin_commands(self):
        admin = self.host().admin
        health = admin.run(0x02, 0xFFFFFFFF, (0x02 | 127 << 16,), to_host=512)
        self.assertEqual((health.status, len(health.data)), (0, 512))
        self.assertEqual(admin.run(0x02, 0, (0x70 | 255 << 16,), to_host=1024).status, 0x109)
        self.assertEqual(admin.run(0x09, 0, (7, 3 << 16 | 3)).result, 0)  # one queue each, 0's based
        self.assertEqual(admin.run(0x18).status, 0)
        self.assertEqual(admin.run(0x08).dw0 & 1, 1)
        self.assertEqual(admin.run(0x0F, 0, (15,)).status, nvme_tcp.INVALID_OPCODE)
        events = [admin.command(0x0C) for _ in range(5)]
        self.assertEqual(admin.result(events[4]).status, 0x105)
        self.assertEqual(admin.run(0x18).status, 0)
        self.assertNotIn(events[0], admin.done)

    def test_connect_says_which_parameter_is_wrong(self):
        def status(**options):
            answer = self.queue().connect_command(**{"nqn": NQN, **options})
            return answer.status, answer.result & 0xFFFFFFFF

        cntlid = self.host().cntlid
        self.assertEqual(status(nqn="nqn.2014-08.org.nvmexpress:other"), (0x182, 1 << 16 | 256))
        self.assertEqual(status(host=""), (0x182, 1 << 16 | 512))
        self.assertEqual(status(cntlid=cntlid), (0x182, 1 << 16 | 16))
        self.assertEqual(status(entries=1), (0x182, 44))
        self.assertEqual(status(entries=1000), (0x182, 44))
        self.assertEqual(status(queue=2, cntlid=cntlid), (0x182, 42))
        self.assertEqual(status(queue=1, cntlid=cntlid + 1), (0x182, 1 << 16 | 16))
        self.assertEqual(status(queue=1, cntlid=cntlid, host=HOST + "x"), (0x182, 1 << 16 | 16))
        self.assertEqual(status(queue=1, cntlid=cntlid), (0, cntlid))
        self.assertEqual(status(queue=1, cntlid=cntlid)[0], nvme_tcp.SEQUENCE_ERROR)

    def test_commands_before_connect_are_a_sequence_error(self):
        queue = self.queue()
        self.assertEqual(queue.identify(1).status, nvme_tcp.SEQUENCE_ERROR)
        self.assertEqual(queue.run(FABRICS, 4, (1, CAP)).status, nvme_tcp.SEQUENCE_ERROR)
        self.assertEqual(queue.connect_command(NQN).status, 0)

    def test_discovery_names_the_subsystem(self):
        admin = self.host(nqn=DISCOVERY).admin
        page = admin.identify(1).data
        self.assertEqual(page[111], 2)
        self.assertEqual(page[768:1024].rstrip(b"\0").decode(), DISCOVERY)
        header = admin.run(0x02, 0, (0x70 | 255 << 16,), to_host=1024).data
        self.assertEqual(struct.unpack_from("<QQH", header), (1, 1, 0))
        entry = admin.run(0x02, 0, (0x70 | 255 << 16, 0, 1024), to_host=1024).data
        self.assertEqual(tuple(entry[:3]), (3, 1, 2))
        self.assertEqual(entry[32:64].decode().rstrip(), str(self.target.address[1]))
        self.assertEqual(entry[256:512].rstrip(b"\0").decode(), NQN)
        self.assertEqual(entry[512:768].decode().rstrip(), "127.0.0.1")
        # No drive behind it.
        self.assertEqual(admin.run(0xC2, 0, call(Relay.CAPABILITIES, 4096), to_host=4096).status, nvme_tcp.INVALID_OPCODE)


class Data(TargetTest):
    def test_blocks_come_back_by_every_way_in(self):
        for digests in 0, HDGST, DDGST, HDGST | DDGST:
            with self.subTest(digests=digests):
                io = self.host(digests).io()
                small, large = pattern(8192), pattern(131072)[::-1]
                self.assertEqual(io.run(0x01, 1, (16, 0, 15), to_drive=small).status, 0)
                self.assertEqual(io.run(0x01, 1, (64, 0, 255), to_drive=large).status, 0)
                self.assertEqual(io.run(0x02, 1, (16, 0, 15), to_host=8192).data, small)
                self.assertEqual(io.run(0x02, 1, (64, 0, 255), to_host=131072).data, large)
                self.assertEqual(io.run(0x01, 1, (16, 0, 15), to_drive=bytes(8192), in_capsule=False).status, 0)
                self.assertEqual(io.run(0x02, 1, (16, 0, 15), to_host=8192).data, bytes(8192))
                self.assertEqual(io.run(0x00, 1).status, 0)

    def test_a_full_queue_of_large_commands_is_served(self):
        io = self.host().io()
        data = [bytes([n]) * 131072 for n in range(64)]
        writes = [io.command(0x01, 1, (n * 256, 0, 255), to_drive=data[n]) for n in range(64)]
        self.assertEqual([io.result(cid).status for cid in writes], [0] * 64)
        reads = [io.command(0x02, 1, (n * 256, 0, 255), to_host=131072) for n in range(64)]
        self.assertTrue(all(io.result(cid).data == data[n] for n, cid in enumerate(reads)))

    def test_blocks_out_of_range_are_refused(self):
        io = self.host().io()
        last = (64 << 20) // 512
        self.assertEqual(io.run(0x02, 1, (last - 1, 0, 0), to_host=512).status, 0)
        self.assertEqual(io.run(0x02, 1, (last, 0, 0), to_host=512).status, 0x080)
        self.assertEqual(io.run(0x02, 1, (last - 1, 0, 1), to_host=1024).status, 0x080)
        self.assertEqual(io.run(0x02, 1, (0xFFFFFFFF, 0xFFFFFFFF, 0), to_host=512).status, 0x080)
        self.assertEqual(io.run(0x02, 1, (0, 0, 1), to_host=512).status, 0x00F)
        self.assertEqual(io.run(0x02, 2, (0, 0, 0), to_host=512).status, 0x00B)
        self.assertEqual(io.run(0x02, 1, (0, 0, 256), to_host=131584).status, nvme_tcp.INVALID_FIELD)

    def test_a_wrong_data_digest_fails_the_command_alone(self):
        io = self.host(DDGST).io()
        cid, entry = io.entry(0x01, 1, (0, 0, 0), 512, in_capsule=True)
        header = struct.pack("<BBBBI", CMD, DDGST, 72, 72, 72 + 512 + 4) + entry
        io.send(header + bytes(512) + b"\1\2\3\4")
        self.assertEqual(io.result(cid).status, 0x022)
        self.assertEqual(io.run(0x01, 1, (0, 0, 0), to_drive=bytes(512)).status, 0)

    def test_pdus_cut_anywhere_are_put_together(self):
        queue = self.host(HDGST | DDGST).admin
        pieces = []
        queue.send, real = pieces.append, queue.send
        cid = queue.command(0xC1, 0, call(Relay.ATTACH, 64), to_drive=bytes(64))
        for byte in b"".join(pieces):
            real(bytes([byte]))
        self.assertEqual(queue.result(cid).errno, 22)


class Storage(TargetTest):
    def setUp(self):
        self.path = os.path.join(self.scratch(), "blocks")

    def test_a_file_keeps_the_blocks(self):
        data = pattern(4096)
        for attempt in range(2):
            self.target = Target(self, "--file", self.path, "--size", "1M")
            host = self.host()
            self.assertEqual(host.admin.identify(1).data[525] & 1, 1)
            io = host.io()
            if attempt == 0:
                self.assertEqual(io.run(0x01, 1, (8, 0, 7), to_drive=data).status, 0)
                self.assertEqual(io.run(0x00, 1).status, 0)
                self.assertEqual(io.run(0x01, 1, (16, 0, 7 | 1 << 30), to_drive=data).status, 0)  # FUA
                self.target.kill()
            else:
                self.assertEqual(io.run(0x02, 1, (8, 0, 7), to_host=4096).data, data)
        self.assertEqual(os.path.getsize(self.path), 1 << 20)


class RelayProtocol(TargetTest):
    def test_an_echo_comes_back_with_every_digest(self):
        port = self.echo()
        for digests in 0, HDGST, DDGST, HDGST | DDGST:
            with self.subTest(digests=digests):
                relay = Relay(self.host(digests).admin, bytes([digests]) * 16)
                relay.open(port)
                data = pattern(200_000)
                relay.send(data)
                self.assertEqual(relay.receive(len(data)), data)

    def test_an_rx_that_waits_does_not_hold_up_others(self):
        relay = Relay(self.host().admin)
        started = relay.rx_command(wait=10_000)
        self.assertEqual(relay.admin.run(0x18).status, 0)
        self.assertNotIn(started, relay.admin.done)

    def test_an_empty_rx_ends_in_time_without_data(self):
        relay = Relay(self.host().admin)
        answer = relay.admin.result(relay.rx_command(wait=50))
        self.assertEqual((answer.status, answer.dw0, answer.data), (0, 0, b""))

    def test_a_session_goes_on_in_another_association(self):
        port = self.echo()
        host = self.host()
        relay = Relay(host.admin)
        relay.open(port)
        relay.send(b"before")
        self.assertEqual(relay.receive(6), b"before")
        relay.rx_command(wait=10_000)  # left behind
        lost = relay.batch([(Relay.DATA, 1, 0, b"between")], relay.tx_next)
        relay.tx_command(lost, relay.tx_next)
        host.close()
        relay.admin = self.host().admin
        self.assertEqual(relay.capabilities()[40:56], relay.epoch)
        relay.attach(resume=True)
        answer = relay.admin.result(relay.tx_command(lost, relay.tx_next))  # whatever became of the first one
        relay.tx_next += 1
        self.assertEqual((answer.status, answer.dw0), (0, relay.tx_next))
        self.assertEqual(relay.receive(7), b"between")
        relay.send(b"after")
        self.assertEqual(relay.receive(5), b"after")

    def test_one_host_going_takes_nothing_from_another(self):
        port = self.echo()
        gone, staying = self.host(), self.host(host=HOST + "2")
        ends, stays = Relay(gone.admin, b"a" * 16), Relay(staying.admin, b"b" * 16)
        ends.open(port)
        stays.open(port)
        ends.rx_command(wait=10_000)
        waiting = stays.rx_command(wait=10_000)
        self.assertEqual(stays.admin.run(0x18).status, 0)
        gone.close()
        eventually(lambda: "has ended" in self.target.log())
        stays.tx((Relay.DATA, 1, 0, b"still here"))
        data = b""
        answer = stays.admin.result(waiting)
        for frame in stays.take(answer):
            data += frame[3] if frame[0] == Relay.DATA else b""
        self.assertEqual(data or stays.receive(10), b"still here")

    def thieves(self, victim):
        """Hosts of another name or of another identifier, each with all that is to be known of the victim's session."""
        for who in ({"host": HOST + "-thief"}, {"host_id": b"t" * 16}):
            thief = Relay(self.host(**who).admin, bytes(who.get("host_id", b"another name----")))
            thief.handle, thief.tx_next, thief.rx_next = victim.handle, victim.tx_next, victim.rx_next
            yield thief

    def test_a_session_is_its_hosts_alone(self):
        victim = Relay(self.host().admin, b"v" * 16)
        victim.open(self.echo())
        for thief in self.thieves(victim):
            injected = thief.batch([(Relay.DATA, 1, 0, b"injected")], thief.tx_next)
            self.assertEqual(thief.admin.result(thief.tx_command(injected, thief.tx_next)).errno, errno.ESTALE)
            self.assertEqual(thief.admin.result(thief.tx_command(injected, 1)).errno, errno.ESTALE, "it tells what came")
            self.assertEqual(thief.admin.result(thief.rx_command(wait=0)).errno, errno.ESTALE)
            self.assertEqual(thief.detach().status, 0)  # as of any unknown handle
            thief.secret = victim.secret
            with self.raises_errno(errno.ESTALE):
                thief.attach(resume=True)
            thief.attach(resume=False)  # one of its own, by the same handle
            self.assertEqual(thief.detach().status, 0)
            victim.send(b"untouched")
            self.assertEqual(victim.receive(9), b"untouched")

    def test_a_program_of_the_same_host_needs_the_secret(self):
        victim = Relay(self.host().admin, b"v" * 16)
        victim.open(self.echo())
        other = Relay(self.host().admin, b"w" * 16)
        other.handle = victim.handle  # from a trace of the kernel
        for resume in False, True:
            with self.raises_errno(errno.ESTALE):
                other.attach(resume)
        victim.send(b"untouched")
        self.assertEqual(victim.receive(9), b"untouched")

    def test_whoever_forwards_commands_can_know_their_lengths(self):
        admin = self.host().admin
        page = admin.identify(1).data
        self.assertEqual(page[264] & 1, 1, "AVSCC: vendor commands tell them")
        self.assertEqual(page[261] & 2, 2, "LPA: there is a Commands Supported and Effects log")
        effects = admin.run(0x02, 0, (0x05 | 1023 << 16,), to_host=4096).data
        self.assertEqual([code for code in range(0xC0, 0x100) if effects[4 * code] & 1], [0xC0, 0xC1, 0xC2])
        wrong = admin.command(0xC2, 0, call(Relay.CAPABILITIES, 4092), to_host=4096)
        self.assertEqual(admin.result(wrong).errno, errno.EINVAL)

    def test_a_stream_number_is_used_again(self):
        relay, port = Relay(self.host().admin), self.echo()
        for n in range(20):
            relay.open(port)
            relay.send(b"round %d" % n)
            self.assertEqual(relay.receive(len(b"round %d" % n)), b"round %d" % n)
            relay.tx((Relay.RESET, 1, 0, b""))

    def test_a_hostile_host_takes_no_byte_from_a_transfer(self):
        victim = Relay(self.host().admin, b"v" * 16)
        victim.open(self.echo())
        hostile = []
        for thief in self.thieves(victim):
            def steal(thief=thief):
                for number in range(HOSTILE):
                    thief.tx_next, thief.rx_next = victim.tx_next, victim.rx_next
                    if number % 3 == 0:
                        batch = thief.batch([(Relay.DATA, 1, 0, b"injected")], thief.tx_next)
                        refused = thief.admin.result(thief.tx_command(batch, thief.tx_next)).errno == errno.ESTALE
                    elif number % 3 == 1:
                        refused = thief.admin.result(thief.rx_command(wait=0)).errno == errno.ESTALE
                    else:
                        refused = thief.detach().status == 0
                    if not refused:
                        return f"command {number} was not refused"
                return None
            hostile.append(Call(steal))
        data = pattern(100_000)
        while any(thief.is_alive() for thief in hostile):
            victim.send(data)
            self.assertTrue(victim.receive(len(data)) == data, "other bytes came back")
            victim.tx((Relay.WINDOW, 1, len(data), b""))
        self.assertEqual([thief.result() for thief in hostile], [None, None])

    def test_failures_name_their_cause(self):
        relay = Relay(self.host().admin)
        with self.raises_errno(111):
            relay.open(closed_port())
        answer = relay.admin.run(0xC1, 0, call(Relay.TX, 64, handle=999, sequence=1), to_drive=bytes(64))
        self.assertEqual(answer.errno, 116)

    def test_a_first_generation_command_is_refused(self):
        self.assertEqual(self.host().admin.run(0xC0, 0, (0, 0), to_host=4096).status, nvme_tcp.INVALID_OPCODE)


class Allowed(TargetTest):
    def setUp(self):
        self.port = self.echo()
        self.target = Target(self, "--allow", f"127.0.0.1:{self.port}", "--allow", "[::1]:*", "--hostnqn", HOST)

    def test_other_addresses_are_refused(self):
        relay = Relay(self.host().admin)
        relay.open(self.port)
        relay.open(self.port, 3, b"localhost")
        relay.open(self.port, 5, b"::ffff:127.0.0.1")
        with self.raises_errno(13):
            relay.open(self.echo(), 7)
        with self.raises_errno(111):
            relay.open(closed_port(), 9, b"::1")

    def test_to_reach_an_address_is_not_to_listen_there(self):
        relay = Relay(self.host().admin)
        with self.raises_errno(errno.EACCES):
            relay.listen(closed_port(), host=b"::1")

    def test_other_hosts_are_refused(self):
        self.assertEqual(self.queue().connect_command(NQN, host=HOST + "2").status, 0x184)
        stranger = self.host(nqn=DISCOVERY, host=HOST + "2").admin
        header = stranger.run(0x02, 0, (0x70 | 255 << 16,), to_host=1024).data
        self.assertEqual(struct.unpack_from("<QQ", header), (1, 0))


class Listening(TargetTest):
    def test_it_is_refused_by_default(self):
        relay = Relay(self.host().admin)
        for stream, host in ((1, b"127.0.0.1"), (3, b"0.0.0.0"), (5, b"::1")):
            with self.subTest(host), self.raises_errno(errno.EACCES):
                relay.listen(closed_port(), stream, host)

    def test_it_is_allowed_where_the_option_says_and_nowhere_else(self):
        port = closed_port()
        self.target = Target(self, "--allow-listen", f"127.0.0.1:{port}", "--allow-listen", "127.0.0.2:*")
        relay = Relay(self.host().admin)
        relay.listen(port)
        relay.listen(0, 3, b"127.0.0.2")
        for stream, host, other in ((5, b"0.0.0.0", port), (7, b"127.0.0.1", 0), (9, b"127.0.0.1", closed_port())):
            with self.subTest(host=host, port=other), self.raises_errno(errno.EACCES):
                relay.listen(other, stream, host)

    @staticmethod
    def publish(mount, port):
        with open(f"{mount.path}/ctl", "w", encoding="ascii") as ctl:
            ctl.write(f"publish {port} 127.0.0.1:80\n")

    def test_csdfs_says_that_it_may_not_publish(self):
        port = closed_port()
        self.target = Target(self, "--allow-listen", f"127.0.0.1:{port}")
        mount = self.mount(uri(self.target.address))
        with self.raises_errno(errno.EACCES):
            self.publish(mount, closed_port())
        self.publish(mount, port)
        self.assertIn("listening", mount.text("published"))


class Inside(TargetTest):
    def setUp(self):
        self.inside = self.netns()
        self.target = Target(self, "--netns", self.inside.name)

    def test_services_are_those_of_the_namespace(self):
        server = self.server(Server.echo, netns=self.inside)
        relay = Relay(self.host().admin)
        relay.open(server.port)
        relay.send(b"in there")
        self.assertEqual(relay.receive(8), b"in there")
        with self.raises_errno(111):
            relay.open(self.echo(), 3)


class Misuse(TargetTest):
    """Section 3.5 of the transport's specification: 1 header field, 2 sequence, 3 header digest, 4 out of range,
    5 limit exceeded, 6 unsupported parameter."""

    def setUp(self):
        super().setUp()
        self.bystander = self.host()
        self.relay = Relay(self.bystander.admin, b"bystander-------")
        self.relay.open(self.echo())

    def tearDown(self):
        self.relay.send(b"unharmed")
        self.assertEqual(self.relay.receive(8), b"unharmed")
        self.assert_serves()

    def raw(self, data):
        queue = self.queue(handshake=False)
        queue.send(data)
        return queue

    def test_no_ic_req_first(self):
        queue = self.queue(handshake=False)
        queue.pdu(CMD, queue.entry(FABRICS, 4)[1])
        self.assert_ended(queue, 2)

    def test_second_ic_req(self):
        queue = self.queue()
        queue.pdu(IC_REQ, bytes(120))
        self.assert_ended(queue, 2)

    def test_another_version_or_alignment(self):
        self.assert_ended(self.raw(struct.pack("<BBBBIHBBI112x", 0, 0, 128, 0, 128, 1, 0, 0, 0)), 6, 8)
        self.assert_ended(self.raw(struct.pack("<BBBBIHBBI112x", 0, 0, 128, 0, 128, 0, 3, 0, 0)), 6, 10)

    def test_unknown_and_wrong_types(self):
        for kind in 8, 10, 255, 1, 5, 7, 9:
            self.assert_ended(self.raw(struct.pack("<BBBBI", kind, 0, 128, 0, 128)), 1, 0)

    def test_wrong_lengths(self):
        self.assert_ended(self.raw(struct.pack("<BBBBI", 0, 0, 72, 0, 128)), 1, 2)
        self.assert_ended(self.raw(struct.pack("<BBBBI", 0, 0, 128, 0, 0)), 1, 4)
        self.assert_ended(self.raw(struct.pack("<BBBBI", 0, 0, 128, 0, 0xFFFFFFFF)), 1, 4)
        queue = self.queue()
        queue.send(struct.pack("<BBBBI", CMD, 0, 72, 72, 0xFFFFFFFF) + queue.entry(FABRICS, 1, length=1024)[1])
        self.assert_ended(queue, 5)
        queue = self.queue()
        queue.send(struct.pack("<BBBBI", CMD, 0, 72, 70, 80))
        self.assert_ended(queue, 1, 3)

    def test_more_in_capsule_than_8_kib(self):
        queue = self.host().admin
        queue.command(0xC1, 0, call(Relay.TX, 8196, handle=1, sequence=1), to_drive=bytes(8196), in_capsule=True)
        self.assert_ended(queue, 5)

    def test_digests_that_were_not_agreed(self):
        queue = self.queue()
        queue.pdu(CMD, queue.entry(FABRICS, 4)[1], digests=HDGST)
        self.assert_ended(queue, 1, 1)
        queue = self.queue(HDGST)
        queue.pdu(CMD, queue.entry(FABRICS, 4)[1], digests=0)
        self.assert_ended(queue, 1)

    def test_a_wrong_header_digest(self):
        queue = self.queue(HDGST)
        entry = queue.entry(FABRICS, 4)[1]
        queue.send(struct.pack("<BBBBI", CMD, HDGST, 72, 0, 76) + entry + b"\4\3\2\1")
        self.assert_ended(queue, 3, 0x01020304)

    def transfer(self):
        """A write of 16 KiB whose R2T has come: (queue, cid, tag)."""
        queue = self.host().io()
        cid = queue.command(0x01, 1, (0, 0, 31), to_drive=bytes(16384))
        kind, _, header, _ = queue.receive_pdu()
        self.assertEqual(kind, R2T)
        told, tag, offset, length = struct.unpack_from("<HHII", header, 8)
        self.assertEqual((told, offset, length), (cid, 0, 16384))
        return queue, cid, tag

    def h2c(self, queue, cid, tag, offset, size, flags=0, told=None):
        queue.pdu(H2C_DATA, struct.pack("<HHII4x", cid, tag, offset, told or size), bytes(size), flags)

    def test_data_nobody_asked_for(self):
        queue = self.host().io()
        self.h2c(queue, 1, 0, 0, 512, LAST)
        self.assert_ended(queue, 1, 10)
        queue, cid, tag = self.transfer()
        self.h2c(queue, cid, tag + 1, 0, 512)
        self.assert_ended(queue, 1, 10)

    def test_data_of_another_command(self):
        queue, cid, tag = self.transfer()
        self.h2c(queue, cid + 1, tag, 0, 512)
        self.assert_ended(queue, 1, 8)

    def test_data_at_the_wrong_place_or_too_much(self):
        queue, cid, tag = self.transfer()
        self.h2c(queue, cid, tag, 512, 512)
        self.assert_ended(queue, 4, 12)
        queue, cid, tag = self.transfer()
        self.h2c(queue, cid, tag, 0, 16388, LAST)
        self.assert_ended(queue, 5, 16)
        queue, cid, tag = self.transfer()
        self.h2c(queue, cid, tag, 0, 512, told=516)
        self.assert_ended(queue, 1, 16)
        queue, cid, tag = self.transfer()
        self.h2c(queue, cid, tag, 0, 512, LAST)
        self.assert_ended(queue, 1, 1)

    def test_more_commands_than_the_queue_has_entries(self):
        relay = Relay(self.host(entries=4).admin)
        for _ in range(5):
            relay.rx_command(wait=10_000)
            relay.rx_next += 1
        self.assert_ended(relay.admin, 2)

    def test_a_host_that_ends_it(self):
        queue = self.host().admin
        queue.pdu(2, struct.pack("<HI10x", 1, 4), digests=0)
        with self.assertRaises(Ended):
            queue.step()

    def test_descriptors_that_make_no_sense(self):
        admin = self.host().admin

        def status(offset=0, length=0, kind=0x5A, data=b"", flags=0x40, opcode=0x06):
            entry = struct.pack("<BBHI16xQIxxxB6I", opcode, flags, 7, 0, offset, length, kind, 1, 0, 0, 0, 0, 0)
            admin.pdu(CMD, entry, data)
            return admin.result(7).status

        self.assertEqual(status(length=4096, kind=0x40), 0x011)
        self.assertEqual(status(length=4096, kind=0x01), 0x00F)
        self.assertEqual(status(length=64, kind=0x01, offset=8, data=bytes(64), opcode=0xC1), 0x016)
        self.assertEqual(status(length=32, kind=0x01, data=bytes(64), opcode=0xC1), 0x00F)
        self.assertEqual(status(length=64, kind=0x5A, data=bytes(64), opcode=0xC1), 0x00F)
        self.assertEqual(status(length=1 << 20), nvme_tcp.INVALID_FIELD)
        self.assertEqual(status(length=100), nvme_tcp.INVALID_FIELD)
        self.assertEqual(status(length=4096, flags=0x41), nvme_tcp.INVALID_FIELD)
        self.assertEqual(status(length=4096, opcode=0x83), nvme_tcp.INVALID_FIELD)
        self.assertEqual(status(length=4096), 0)

    def test_a_flood_of_connections_is_limited(self):
        flood = [socket.create_connection(self.target.address) for _ in range(100)]
        for sock in flood:
            self.addCleanup(sock.close)
        eventually(lambda: "closed before its Connect to make room for a newcomer" in self.target.log())
        self.relay.send(b"during")
        self.assertEqual(self.relay.receive(6), b"during")
        for sock in flood:
            sock.close()

        def room():
            with contextlib.suppress(Ended, OSError, AssertionError):
                self.assert_serves()
                return True
            return False

        eventually(room)

    def test_random_bytes(self):
        for seed in range(20):
            queue = self.queue()
            queue.send(pattern(100_000)[seed * 1000:seed * 1000 + 500])
            with contextlib.suppress(Ended, BrokenPipeError, ConnectionResetError):
                queue.sock.shutdown(socket.SHUT_WR)
                while True:
                    queue.step()


class Strangers(TargetTest):
    """Whoever reaches the port keeps nobody else out. The crowd comes from 127.0.0.2, hosts from 127.0.0.1."""

    def connection(self, source="127.0.0.2", says=b""):
        sock = socket.create_connection(self.target.address, 20 * SLOW, (source, 0))
        self.addCleanup(sock.close)
        if says:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                sock.sendall(says)
        return sock

    def assert_gets_in(self, queue=None):
        started = time.monotonic()
        queue = queue or self.queue()
        self.assertEqual(queue.connect_command(NQN, host=HOST + "-honest").status, 0)
        self.assertLess(time.monotonic() - started, 2 * SLOW)

    def test_200_silent_connections_of_an_address(self):
        crowd = [self.connection() for _ in range(200)]
        self.assert_gets_in()
        eventually(lambda: ", 16 of them from 127.0.0.2" in self.target.log())
        self.assertEqual(len(crowd), 200)

    def test_200_silent_connections_of_as_many_addresses(self):
        crowd = [self.connection(f"127.0.1.{n}") for n in range(1, 201)]
        self.assert_gets_in()
        self.assertEqual(len(crowd), 200)

    def test_200_silent_connections_of_a_user(self):
        self.target = Target(self, listen=f"unix:{self.scratch()}/target")
        crowd = []
        for _ in range(200):
            crowd.append(socket.socket(socket.AF_UNIX))
            self.addCleanup(crowd[-1].close)
            crowd[-1].connect(self.target.address)

        def queue():
            with contextlib.suppress(BlockingIOError):  # the listen queue is full still: a unix socket says so at once
                return self.queue()

        self.assert_gets_in(eventually(queue, 2))
        eventually(lambda: f", 16 of them from user {os.getuid()}" in self.target.log())

    def test_200_tls_handshakes_that_end_in_the_middle(self):
        key = nvme_tls.Key(self)
        self.target = Target(self, "--tls-key", key.path)
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)  # a ClientHello, of 517 bytes
        crowd = [self.connection(says=hello) for _ in range(200)]
        self.assert_gets_in(nvme_tls.tls_queue(self, self.target.address, *key.psk(HOST + "-honest", NQN)))
        self.assertEqual(len(crowd), 200)

    def test_40_controllers_of_a_host_without_keep_alive(self):
        answers = [self.queue().connect_command(NQN, host=HOST + "-greedy") for _ in range(40)]
        self.assertEqual([answer.status for answer in answers], [0] * 8 + [0x181] * 32)
        self.assert_gets_in()
        self.assertIn(f'host "{HOST}-greedy" gets no controller, it has 8 already; controllers: '
                      f'8 of "{HOST}-greedy"', self.target.log())

    def test_40_controllers_under_names_that_an_address_makes_up(self):
        answers = [Queue(self, self.connection()).connect_command(NQN, host=HOST + str(n)) for n in range(40)]
        self.assertEqual([answer.status for answer in answers], [0] * 16 + [0x181] * 24)
        self.assert_gets_in()

    def test_20_sessions_of_a_host(self):
        admin = self.host(host=HOST + "-greedy").admin
        refused = 0
        for n in range(20):
            try:
                Relay(admin, bytes([n]) * 16)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOMEM)
                refused += 1
        self.assertEqual(refused, 12)
        Relay(self.host(host=HOST + "-honest").admin, b"h" * 16)

    def test_csdfs_says_that_the_target_is_full(self):
        for n in range(8):
            self.assertEqual(self.queue().connect_command(NQN, host=HOST).status, 0, n)
        # In the foreground: if it were let in after all, it would be ended with the test.
        run = self.process([CSDFS, "-f", uri(self.target.address, "hostnqn=" + HOST), self.scratch()])
        _, errors = run.communicate(timeout=20 * SLOW)
        self.assertEqual(run.returncode, 1)
        self.assertIn("it is full, it has no controller left for this host; its log says who has them: end a mount "
                      "of it, or wait", errors.decode())

    def test_csdfs_says_that_the_target_has_no_session_left(self):
        admin = self.host().admin
        for n in range(8):
            Relay(admin, bytes([n]) * 16)
        mount = self.mount(uri(self.target.address, "hostnqn=" + HOST))
        eventually(lambda: "the drive is full, it has no session left for this host: end a mount of it, or wait" in
                   mount.log())

    def test_a_host_that_is_gone_is_noticed_by_tcp(self):
        host = self.host()
        command = ["ss", "-tno", "state", "established", "sport", f":{self.target.address[1]}"]
        eventually(lambda: re.search(r"timer:\(keepalive,(29|30|2\ds)",  # after what is on the way is acknowledged
                                     subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        self.assertEqual(host.admin.run(0x18).status, 0)


class Silence(TargetTest):
    def test_a_host_without_keep_alive_is_gone(self):
        host = self.host(keep_alive=300)
        io = host.io()
        for _ in range(3):
            self.assertEqual(host.admin.run(0x18).status, 0)
        for queue in host.admin, io:
            with self.assertRaises(Ended):
                queue.step()
        eventually(lambda: "not heard for its keep-alive timeout" in self.target.log())

    def test_keep_alive_keeps_it(self):
        host = self.host(keep_alive=1000)
        relay = Relay(host.admin)
        for _ in range(15):  # 1.5 s, told by rx that wait; each is a sign of life
            self.assertEqual(relay.rx(wait=100), [])

    def test_an_idle_target_does_nothing(self):
        host = self.host()
        host.io()
        relay = Relay(host.admin)
        before = cpu_ticks(self.target.process.pid)
        for _ in range(5):
            relay.rx(wait=200)
        self.assertLessEqual(cpu_ticks(self.target.process.pid) - before, 5)

    def test_a_host_that_does_not_read_stalls_itself_alone(self):
        other = self.host().io()
        slow = self.host(host=HOST + "2").io()
        for n in range(100):
            slow.command(0x02, 1, (n, 0, 255), to_host=131072)
        for _ in range(20):
            self.assertEqual(other.run(0x02, 1, (0, 0, 255), to_host=131072).status, 0)
        for _ in range(100):
            slow.step()
            slow.step()
        self.assertEqual(len(slow.done), 100)


class Program(CsdTest):
    def failure(self, *options):
        run = subprocess.run([TARGET, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                             timeout=20 * SLOW, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stdout, "")
        self.assertRegex(run.stderr, r"\Acsd-target: [^\n]+\n\Z")
        return run.stderr

    def test_sentences_name_what_is_wrong(self):
        self.assertIn('"127.0.0.1"', self.failure("--listen", "127.0.0.1"))
        self.assertIn("not a name", self.failure("--listen", "localhost:4420"))
        self.assertIn("vsock:CID:PORT", self.failure("--listen", "vsock:x:1"))
        self.assertIn("1 to 107 bytes", self.failure("--listen", "unix:" + "x" * 200))
        self.assertIn("223 bytes", self.failure("--nqn", "nqn." + "x" * 300))
        self.assertIn('"db.local:5432"', self.failure("--allow", "db.local:5432"))
        self.assertIn("no-such-namespace", self.failure("--netns", "no-such-namespace"))
        self.assertIn("/proc/none", self.failure("--file", "/proc/none", "--size", "1M"))
        self.assertIn("0 blocks", self.failure("--size", "100"))
        self.assertIn("1 to 3600", self.failure("--lease", "0"))
        self.assertIn("--frob", self.failure("--frob"))

    def test_an_address_in_use_is_told(self):
        target = Target(self)
        self.assertIn("in use", self.failure("--listen", target.text))

    def test_unix_sockets(self):
        path = os.path.join(self.scratch(), "target")
        for _ in range(2):
            target = Target(self, listen="unix:" + path)
            self.assertEqual(Host(self, target.address, NQN).admin.identify(1).status, 0)
            # What a killed target leaves is replaced.
            target.kill()
        Target(self, listen="unix:" + path)

    def test_the_unix_socket_of_a_running_target_is_not_taken(self):
        target = Target(self, listen=f"unix:{self.scratch()}/target")
        self.assertEqual(self.failure("--listen", target.text), f'csd-target: cannot listen on "{target.text}": '
                                                                "somebody listens there; end them first\n")
        self.assertEqual(Host(self, target.address, NQN).admin.identify(1).status, 0)

    def test_ipv6(self):
        target = Target(self, listen="[::1]:0")
        entry = Host(self, target.address, DISCOVERY).admin.run(0x02, 0, (0x70 | 511 << 16,), to_host=2048).data[1024:]
        self.assertEqual((entry[1], entry[512:768].decode().rstrip()), (2, "::1"))

    def test_names_of_the_same_drive_are_the_same(self):
        def name():
            process = spawn([TARGET, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
            line = process.stdout.readline()
            process.terminate()
            process.wait()
            process.stdout.close()
            return line.split()[-1]

        self.assertRegex(name(), r"^nqn\.2014-08\.org\.nvmexpress:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        self.assertEqual(name(), name())


class Tls(CsdTest):
    """The target against OpenSSL's own command, with keys derived here."""

    def setUp(self):
        self.key = nvme_tls.Key(self)
        self.target = Target(self, "--tls-key", self.key.path)

    def queue(self, host=HOST, subsystem=NQN, version=1):
        return nvme_tls.tls_queue(self, self.target.address, *self.key.psk(host, subsystem, version))

    def test_a_host_with_the_key_gets_in(self):
        for version in 0, 1:
            with self.subTest(version):
                queue = self.queue(version=version)
                self.assertEqual(queue.connect_command(NQN).status, 0)
                self.assertEqual(queue.set_property(CC, ENABLE), 0)
                self.assertEqual(queue.identify(1).status, 0)

    def test_a_key_that_is_used_as_it_is(self):
        self.key = nvme_tls.Key(self, transform=False)
        self.target = Target(self, "--tls-key", self.key.path)
        self.assertEqual(self.queue().connect_command(NQN).status, 0)

    def test_discovery_says_that_tls_is_required(self):
        queue = self.queue(subsystem=DISCOVERY)
        self.assertEqual(queue.connect_command(DISCOVERY).status, 0)
        self.assertEqual(queue.set_property(CC, ENABLE), 0)
        entry = queue.run(0x02, 0, (0x70 | 255 << 16, 0, 1024), to_host=1024).data
        self.assertEqual(entry[3] & 3, 1)  # TREQ
        self.assertEqual(entry[768], 2)  # TSAS: TLS 1.3

    def refused(self, sock):
        """The target has closed, at once, after what this returns."""
        sock.settimeout(5 * SLOW)
        said = b""
        while part := sock.recv(4096):
            said += part
        return said

    def test_a_host_that_does_not_speak_tls_is_refused(self):
        queue = Queue(self, self.target.address, handshake=False)
        queue.pdu(IC_REQ, struct.pack("<HBBI112x", 0, 0, 0, 0))
        self.assertEqual(self.refused(queue.sock), bytes((21, 3, 3, 0, 2, 2, 70)))  # an alert, protocol_version
        lines = eventually(lambda: [line for line in self.target.log().splitlines() if "TLS" in line])
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("queue 0: refused, because TLS is required and the host does not speak it", lines[0])
        self.assertEqual(self.queue().connect_command(NQN).status, 0)

    def handshake(self, identity, secret, *options):
        run = nvme_tls.s_client(self, self.target.address, identity, secret, *options)
        output, errors = run.communicate(timeout=20 * SLOW)
        return run.returncode, (output + errors).decode()

    def test_other_keys_and_names_are_refused(self):
        identity, secret = self.key.psk(HOST, NQN)
        other = nvme_tls.Key(self)
        v0 = self.key.psk(HOST, NQN, 0)[0]
        for who, what, why in ((identity[:-4] + "AAA=", secret, "has another TLS key"),
                               (identity, other.psk(HOST, NQN)[1], "has another TLS key"),
                               (*other.psk(HOST, NQN), "has another TLS key"),
                               (v0, other.psk(HOST, NQN, 0)[1], "has another TLS key"),
                               (*self.key.psk(HOST, NQN + "x"), "has a TLS key for another subsystem, "),
                               ("Client_identity", secret, "its TLS key is not one of NVMe/TCP")):
            with self.subTest(who):
                status, said = self.handshake(who, what)
                self.assertNotEqual(status, 0)
                self.assertRegex(said, "alert (handshake failure|illegal parameter)")
                eventually(lambda why=why: why in self.target.log().rstrip().rsplit("\n", 1)[-1], 5)

    def test_only_tls_1_3_with_a_key_and_diffie_hellman_gets_in(self):
        for options in (["-tls1_2"], ["-tls1_3"], ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"]):
            with self.subTest(options):
                run = self.process(["openssl", "s_client", "-connect", "%s:%d" % self.target.address, *options])
                run.communicate(timeout=20 * SLOW)
                self.assertNotEqual(run.returncode, 0)
        status, said = self.handshake(*self.key.psk(HOST, NQN), "-allow_no_dhe_kex")
        self.assertEqual(status, 0, said)
        self.assertIn("Server Temp Key: X25519", said)
        self.assertIn("Reused, TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256", said)
        self.assertNotIn("New Session Ticket", said)

    def test_a_host_is_who_its_key_says(self):
        other = HOST + "2"
        answer = self.queue().connect_command(NQN, host=other)
        self.assertEqual(answer.status, 0x184)
        eventually(lambda: f'host "{HOST}", by its TLS key, may not connect as "{other}"' in self.target.log())

    def test_keys_are_updated_in_between(self):
        sock, end = socket.socketpair()
        self.addCleanup(sock.close)
        sock.settimeout(20 * SLOW)
        with end:  # not quiet: a line with K asks the target to update its keys, too
            nvme_tls.s_client(self, self.target.address, *self.key.psk(HOST, NQN), stdin=end, stdout=end,
                              stderr=subprocess.STDOUT)
        said = b""

        def until(mark):
            nonlocal said
            while mark not in said:
                part = sock.recv(4096)
                self.assertTrue(part, said)
                said += part

        until(b"Verify return code")
        for _ in range(3):
            sock.sendall(b"K\n")
            until(b"KEYUPDATE")
            said = b""
        queue = Queue(self, sock, handshake=False)
        queue.pdu(IC_REQ, struct.pack("<HBBI112x", 0, 0, 0, 0))
        until(struct.pack("<BBBBI", 1, 0, 128, 0, 128))  # ICResp

    def test_a_host_that_only_connects_is_ended_in_time(self):
        sock = socket.create_connection(self.target.address)
        self.addCleanup(sock.close)
        sock.settimeout(15 * SLOW)
        sock.sendall(b"\x16\x03\x01")
        self.assertEqual(sock.recv(1), b"")
        eventually(lambda: "no Connect in time" in self.target.log())


class HostKeys(CsdTest):
    """A key for each host."""

    OTHER = HOST + "-other"

    def setUp(self):
        self.keys = {HOST: nvme_tls.Key(self), self.OTHER: nvme_tls.Key(self)}

    def start(self, *values):
        self.target = Target(self, *(word for value in values for word in ("--tls-key", value)))

    def each(self):
        return [f"{host}={key.path}" for host, key in self.keys.items()]

    def queue(self, host, key):
        return nvme_tls.tls_queue(self, self.target.address, *key.psk(host, NQN))

    def assert_gets_in(self, host, key):
        self.assertEqual(self.queue(host, key).connect_command(NQN, host=host).status, 0)

    def assert_refused(self, host, key, why):
        run = nvme_tls.s_client(self, self.target.address, *key.psk(host, NQN))
        run.communicate(timeout=20 * SLOW)
        self.assertNotEqual(run.returncode, 0)
        eventually(lambda: why in self.target.log().rstrip().rsplit("\n", 1)[-1], 5)

    def test_each_host_gets_in_with_its_own(self):
        self.start(*self.each())
        for host, key in self.keys.items():
            self.assert_gets_in(host, key)

    def test_no_host_gets_in_as_another(self):
        self.start(*self.each())
        self.assert_refused(self.OTHER, self.keys[HOST], f'host "{self.OTHER}" has another TLS key')
        answer = self.queue(HOST, self.keys[HOST]).connect_command(NQN, host=self.OTHER)
        self.assertEqual(answer.status, 0x184)
        eventually(lambda: f'host "{HOST}", by its TLS key, may not connect as "{self.OTHER}"' in self.target.log())

    def test_a_host_without_a_key_is_refused(self):
        self.start(self.each()[0])
        self.assert_refused(self.OTHER, self.keys[HOST], f'there is no TLS key for host "{self.OTHER}"')
        self.assert_gets_in(HOST, self.keys[HOST])

    def test_the_key_of_all_hosts_is_not_one_of_those_that_have_their_own(self):
        common = nvme_tls.Key(self)
        self.start(common.path, self.each()[0])
        self.assert_refused(HOST, common, f'host "{HOST}" has another TLS key')
        self.assert_gets_in(HOST, self.keys[HOST])
        self.assert_gets_in(self.OTHER, common)

    def directory(self):
        place = self.scratch()
        for host, key in self.keys.items():
            os.link(key.path, f"{place}/{host}")
        return place

    def test_a_directory_of_keys(self):
        place = self.directory()
        with open(f"{place}/.swp", "wb"):
            pass
        self.start(place)
        for host, key in self.keys.items():
            self.assert_gets_in(host, key)
        self.assert_refused(self.OTHER, self.keys[HOST], f'host "{self.OTHER}" has another TLS key')
        self.assert_refused(HOST + "-third", self.keys[HOST], "there is no TLS key for host ")

    def test_csdfs_takes_its_hosts(self):
        self.start(*self.each())
        place = self.target.address
        options = f"hostnqn={HOST}&tls-key={self.keys[HOST].path}"
        drive = self.mount(f"nvme-tcp://{place[0]}:{place[1]}/{NQN}?{options}")
        server = self.server(Server.echo)
        fd = self.fd(drive.open(server.port))
        os.write(fd, b"hello")
        self.assertEqual(read_exactly(fd, 5), b"hello")

    def refuses_to_start(self, *values):
        run = self.process([TARGET, "--listen", "127.0.0.1:0", *(f"--tls-key={value}" for value in values)])
        _, errors = run.communicate(timeout=20 * SLOW)
        self.assertEqual(run.returncode, 1)
        return errors.decode().removeprefix("csd-target: TLS key")

    def test_what_is_wrong_is_one_sentence(self):
        key = self.keys[HOST]
        long = nvme_tls.Key(self, size=48)
        self.assertRegex(self.refuses_to_start(key.path, key.path),
                         r'^ file ".*" would be the second one for all hosts\n$')
        self.assertRegex(self.refuses_to_start(f"{HOST}={key.path}", f"{HOST}={key.path}"),
                         r'^ file ".*": host "nqn.*" has a key already\n$')
        self.assertRegex(self.refuses_to_start(f"{HOST}={key.path}", long.path),
                         r'^ files ".*" and ".*" have keys of 32 and 48 bytes; a target\'s are all of one size\n$')
        self.assertRegex(self.refuses_to_start(f"{HOST}={key.path}2"), r'^ file ".*2": No such file or directory\n$')
        self.assertRegex(self.refuses_to_start(f"nqn. x={key.path}"), r'^ file ".*": "nqn. x" is not the NQN of a host ')

    def test_what_is_wrong_with_a_directory_is_one_sentence(self):
        place = self.directory()
        os.chmod(place, 0o770)
        self.assertRegex(self.refuses_to_start(place),
                         r'^ directory ".*" can be changed by others than its owner; chmod go-w it\n$')
        os.chmod(place, 0o700)
        os.link(self.keys[HOST].path, f"{place}/README")
        self.assertRegex(self.refuses_to_start(place), r'^ file ".*": "README" is not the NQN of a host ')
        self.assertRegex(self.refuses_to_start(self.scratch()), r'^ directory ".*" is empty; ')


class TlsKeyFile(CsdTest):
    def test_what_is_wrong_is_one_sentence(self):
        key = nvme_tls.Key(self)
        for mode, path, text in ((0o644, key.path, f'file "{key.path}" is open to others than its owner; chmod 600 it'),
                                 (0o600, key.path + "2", f'file "{key.path}2": No such file or directory')):
            os.chmod(key.path, mode)
            run = self.process([TARGET, "--listen", "127.0.0.1:0", "--tls-key", path])
            _, errors = run.communicate(timeout=20)
            self.assertEqual((run.returncode, errors.decode()), (1, f"csd-target: TLS key {text}\n"))


if __name__ == "__main__":
    main()
