"""The ioctls of a mount's files as libnvsock/mount_abi.h has them, written a second time: a change there that old
programs would notice fails here."""

import fcntl
import struct


def ioc(direction, number, size):
    return direction << 30 | size << 16 | 0xC5 << 8 | number


_READ, _WRITE = 2, 1
IOC_INFO = ioc(_READ, 1, 32)
IOC_PEER = ioc(_READ, 2, 136)
IOC_LOCAL = ioc(_READ, 3, 136)
IOC_ERROR = ioc(_READ, 4, 4)
IOC_SHUTDOWN = ioc(_WRITE, 5, 4)
IOC_INQ = ioc(_READ, 6, 4)
IOC_OUTQ = ioc(_READ, 7, 4)
IOC_SETOPT = ioc(_WRITE, 8, 256)
IOC_GETOPT = ioc(_READ | _WRITE, 9, 256)
CONNECTING, CONNECTED, FAILED = 0, 1, 2


def ioctl_int(fd, command, value=0):
    buffer = bytearray(struct.pack("i", value))
    fcntl.ioctl(fd, command, buffer)
    return struct.unpack("i", buffer)[0]
