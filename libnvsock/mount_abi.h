/* The ABI of a mount file: what csdfs answers beyond read, write and poll.
 *
 * A file under MOUNT/tcp *is* one connection, a file under MOUNT/udp one flow of datagrams, as a connected
 * UDP socket is: each read() takes one datagram, each write() of 1 to NVSOCK_DATAGRAM_MAX bytes sends one.
 * Whatever several processes may share (addresses, pending error, options, peeked bytes, half-close) lives in
 * csdfs and is reached by these ioctls; the preload shim keeps no state of its own. The commands carry their
 * size (asm-generic/ioctl.h), because the kernel copies "restricted" FUSE ioctls by it: at most 16383 bytes
 * (14 bits).
 *
 * C and C++; no dependency beyond the kernel's and libc's headers. Integers are host byte order: both
 * ends run on one host. A command on a file that is not a connection of csdfs fails with ENOTTY.
 *
 * Every command answers from memory, at once; only _RECV and _SEND move bytes, and they never wait
 * (EAGAIN instead). Errors are those of the socket call each one stands for.
 */
#ifndef NVSOCK_MOUNT_ABI_H
#define NVSOCK_MOUNT_ABI_H

#include <linux/ioctl.h>
#include <stdint.h>
#include <sys/socket.h>

#define NVSOCK_ABI_VERSION 1u
/* st_ino of a file under MOUNT/tcp or MOUNT/udp has bit 63 set, and bit 62 if it is under MOUNT/udp: statx()
 * tells the two apart without a question to csdfs (AT_STATX_DONT_SYNC). */
#define NVSOCK_INO_CONNECTION (UINT64_C(1) << 63)
#define NVSOCK_INO_DATAGRAM (UINT64_C(1) << 62)
#define NVSOCK_DATAGRAM_MAX 65507u /* bytes in a datagram: UDP over IPv4 */
#define NVSOCK_IOC_TYPE 0xC5       /* unassigned in the kernel's ioctl-number.rst (6.12) */

/* Life of a connection as connect(2) callers see it. */
enum nvsock_state {
  NVSOCK_CONNECTING = 0, /* open() was O_NONBLOCK and the drive has not answered */
  NVSOCK_CONNECTED = 1,  /* established; also after either side closed its half */
  NVSOCK_FAILED = 2,     /* never was established; NVSOCK_IOC_ERROR tells why */
};

struct nvsock_info {
  uint32_t abi;         /* NVSOCK_ABI_VERSION */
  uint32_t state;       /* enum nvsock_state */
  int32_t socket_type;  /* SOCK_STREAM or SOCK_DGRAM */
  int32_t domain;       /* AF_INET or AF_INET6 */
  int32_t protocol;     /* IPPROTO_TCP or IPPROTO_UDP */
  uint32_t max_message; /* largest payload of one NVSOCK_IOC_RECV or _SEND, bytes */
  uint64_t stream;      /* the number `connections` lists */
};

/* Addresses; ENOTCONN before the connection is established, and for the peer's after a reset. */
struct nvsock_address {
  uint32_t length; /* valid bytes of `address` */
  uint32_t pad;
  struct sockaddr_storage address;
};

/* Socket options as setsockopt(2) and getsockopt(2) have them; `length` is in and out. SO_RCVTIMEO and
 * SO_SNDTIMEO are obeyed by plain read() and write(). Others are remembered and told, faithfully.
 * Setting SOL_SOCKET, SO_DOMAIN to AF_INET6 on an IPv4 connection makes it one of an IPv6 socket: from then
 * on the domain is AF_INET6 and both addresses are IPv4-mapped (RFC 4291 section 2.5.5.2). ENOPROTOOPT: an
 * option csdfs does not know. EINVAL: a length or value that it cannot have. */
#define NVSOCK_OPTION_MAX 240u
struct nvsock_option {
  int32_t level;
  int32_t name;
  uint32_t length;
  uint32_t pad;
  uint8_t value[NVSOCK_OPTION_MAX];
};

/* Header of NVSOCK_IOC_RECV and NVSOCK_IOC_SEND; the payload follows it. */
struct nvsock_message {
  uint32_t length; /* RECV in: bytes wanted. SEND in: bytes of payload. Out: of a datagram, its whole size. */
  uint32_t flags;  /* RECV: NVSOCK_PEEK or 0. SEND: 0. */
};
#define NVSOCK_PEEK 1u
#define NVSOCK_MESSAGE_MAX 16368u /* payload, so that header and payload stay under 16 KiB */

#define NVSOCK_IOC_INFO _IOR(NVSOCK_IOC_TYPE, 1, struct nvsock_info)
#define NVSOCK_IOC_PEER _IOR(NVSOCK_IOC_TYPE, 2, struct nvsock_address)
#define NVSOCK_IOC_LOCAL _IOR(NVSOCK_IOC_TYPE, 3, struct nvsock_address)
#define NVSOCK_IOC_ERROR _IOR(NVSOCK_IOC_TYPE, 4, int)    /* SO_ERROR: reads and clears */
#define NVSOCK_IOC_SHUTDOWN _IOW(NVSOCK_IOC_TYPE, 5, int) /* SHUT_RD, SHUT_WR, SHUT_RDWR */
#define NVSOCK_IOC_INQ _IOR(NVSOCK_IOC_TYPE, 6, int)      /* FIONREAD: bytes, or those of the next datagram */
#define NVSOCK_IOC_OUTQ _IOR(NVSOCK_IOC_TYPE, 7, int)     /* SIOCOUTQ: accepted, not yet in the drive */
#define NVSOCK_IOC_SETOPT _IOW(NVSOCK_IOC_TYPE, 8, struct nvsock_option)
#define NVSOCK_IOC_GETOPT _IOWR(NVSOCK_IOC_TYPE, 9, struct nvsock_option)

/* Receive without waiting (MSG_DONTWAIT), optionally leaving the bytes (MSG_PEEK). PAYLOAD is the room
 * behind the header, at most NVSOCK_MESSAGE_MAX. Returns the bytes received, 0 at end of stream.
 * A datagram that is longer than the bytes wanted is cut. One that is not, but does not fit behind the
 * header, stays where it is and EMSGSIZE says so, unless NVSOCK_PEEK is set: take it with read(). */
#define NVSOCK_IOC_RECV(PAYLOAD) \
  _IOC(_IOC_READ | _IOC_WRITE, NVSOCK_IOC_TYPE, 10, sizeof(struct nvsock_message) + (PAYLOAD))

/* Send without waiting. Returns the bytes accepted, at least 1; EAGAIN: the queue is full. A datagram is
 * accepted whole and may be empty, which no write() can say; one too large for this goes with write(). */
#define NVSOCK_IOC_SEND(PAYLOAD) \
  _IOC(_IOC_WRITE, NVSOCK_IOC_TYPE, 11, sizeof(struct nvsock_message) + (PAYLOAD))

#endif
