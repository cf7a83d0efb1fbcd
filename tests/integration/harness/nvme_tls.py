"""TLS of NVMe/TCP, without the code under test: keys and what they become, from the specification, and OpenSSL's
command as a host."""

import base64
import hashlib
import hmac
import os
import socket
import struct
import subprocess
import zlib

from .nvme_tcp import Queue


class Key:
    """A configured key. `transform`: whether host and subsystem use one that is derived of it."""

    def __init__(self, test, size=32, transform=True, secret=None):
        self.secret = secret or os.urandom(size)
        self.hash, self.number = (hashlib.sha256, 1) if size == 32 else (hashlib.sha384, 2)
        self.transform = transform
        whole = self.secret + struct.pack("<I", zlib.crc32(self.secret))
        self.text = f"NVMeTLSkey-1:{self.number if transform else 0:02}:{base64.b64encode(whole).decode()}:"
        self.path = f"{test.scratch()}/key"
        with open(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as file:
            file.write(self.text + "\n")

    def _expand_label(self, key, label, context):
        size = self.hash().digest_size
        secret = hmac.new(bytes(size), key, self.hash).digest()
        info = struct.pack(">HB", size, len(label)) + label + bytes([len(context)]) + context
        return hmac.new(secret, info + b"\1", self.hash).digest()

    def psk(self, host, subsystem, version=1):
        """The identity, and the key of a connection."""
        key = self._expand_label(self.secret, b"tls13 HostNQN", host.encode()) if self.transform else self.secret
        names = f"{host} {subsystem}"
        identity = context = f"NVMe{version}R{self.number:02} {names}"
        if version == 1:
            digest = hmac.new(key, f"{names} NVMe-over-Fabrics".encode(), self.hash).digest()
            digest = base64.b64encode(digest).decode()
            identity, context = f"{identity} {digest}", f"{self.number:02} {digest}"
        return identity, self._expand_label(key, b"tls13 nvme-tls-psk", context.encode())


def s_client(test, address, identity, secret, *options, **streams):
    """OpenSSL's command as a host; it takes keys of 32 bytes only."""
    return test.process(["openssl", "s_client", "-connect", f"{address[0]}:{address[1]}", "-tls1_3", "-psk_identity",
                         identity, "-psk", secret.hex(), *options], **streams)


def tls_queue(test, address, identity, secret):
    """A Queue whose bytes OpenSSL's command encrypts."""
    sock, end = socket.socketpair()
    with end:
        s_client(test, address, identity, secret, "-quiet", stdin=end, stdout=end, stderr=subprocess.DEVNULL)
    return Queue(test, sock)
