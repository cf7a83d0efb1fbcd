/* libnvsock: TCP connections inside a drive, for programs that want them without a preload.
 *
 * Linked with, the library changes nothing about a program's own sockets: its libc hooks act only in a
 * process that named it in LD_PRELOAD or /etc/ld.so.preload. Both functions may be called from any thread.
 */
#ifndef NVSOCK_H
#define NVSOCK_H

#ifdef __cplusplus
extern "C" {
#endif

/* Connects to `service` (a port number, or a name csdfs knows) of `host` (an address, IPv6 with or without
 * brackets, or a name the drive resolves) as seen from the drive. `flags` is 0 or a combination of
 * SOCK_NONBLOCK and SOCK_CLOEXEC.
 *
 * Returns a descriptor for read(), write(), poll(), close() and the ioctls of mount_abi.h, or -1 with errno
 * as connect() has it; ENETUNREACH: no csdfs at NVSOCK_MOUNT, or a name it cannot read; EINVAL: an argument
 * that cannot be. Blocks until the connection stands unless SOCK_NONBLOCK is given: then it is writable as
 * soon as it stands or has failed. */
int nvsock_connect(const char* host, const char* service, int flags);

/* From now on (`on` not 0) the hooks of this process do nothing, or (0) act again. */
void nvsock_bypass(int on);

#ifdef __cplusplus
}
#endif
#endif
