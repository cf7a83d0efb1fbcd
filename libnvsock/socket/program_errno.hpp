// How each cause becomes the errno a program sees: the one table, for both generations of the host, for csdfs
// and for the preload library. docs/preload.md shows it.
//
// A cause passes two doors. The first is the mount's file: open(2), read(2), write(2), fsync(2) and
// SO_ERROR of it tell the truth about a drive, in errnos a program may never have met on a socket. The
// second is connect(2) of the preload library, whose callers know its manual page and decide by it whether
// to try again, or elsewhere.
//
// An errno mapping is added as a row here and one in docs/preload.md; a test compares the two.
//
// Constant data and constexpr functions only, because the preload library may need nothing of the
// C++ run time. Threads: any.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace nvsock {

enum class Cause : uint8_t {
  refused,
  timed_out,
  drive_full,
  drive_gone,
  reset,
  reset_behind_end,
  closed_by_user,
  protocol_broken,
  no_ipv6,
  no_names,
  no_datagrams,
  no_csdfs,
};

struct ProgramErrno {
  Cause cause;
  int file;          // of the mount's file
  int connect;       // of connect(2) through the preload library
  const char* what;  // as docs/preload.md has it
};

inline constexpr ProgramErrno program_errnos[] = {
    {Cause::refused, ECONNREFUSED, ECONNREFUSED,
     "the service refuses; or a drive of the first generation fails to connect and does not say why"},

    // The drive's silence looks like the service's, and is the same to a program: later may be better.
    {Cause::timed_out, ETIMEDOUT, ETIMEDOUT,
     "the service does not answer; or the drive does not, for as long as its lease"},

    // Not in connect(2), but socket(2) has it, and no other says that closing something helps.
    {Cause::drive_full, ENFILE, ENFILE, "all connections of the drive are in use"},

    // connect(2) knows networks and no devices: what is behind the drive cannot be reached now, which callers
    // take as a reason to try another address, as they do when there is no csdfs.
    {Cause::drive_gone, ENODEV, ENETUNREACH, "the drive is gone; or the mount ends"},

    {Cause::reset, ECONNRESET, ECONNRESET,
     "the service resets the connection; or the drive has started anew"},

    // Linux's tcp_reset(). connect(2) cannot meet it but in a race, and has the one name for all resets.
    {Cause::reset_behind_end, EPIPE, ECONNRESET, "the same, behind the service's own end"},

    // POSIX's connect() does not list it, but it is what happened: software ended this, and no other end did.
    {Cause::closed_by_user, ECONNABORTED, ECONNABORTED, "`close` was written to `ctl`"},

    // The truth, in the word that accept(2) and SCTP use; to try again does not help.
    {Cause::protocol_broken, EPROTO, EPROTO,
     "the drive breaks the protocol; or names an error that Linux does not have"},

    {Cause::no_ipv6, EAFNOSUPPORT, EAFNOSUPPORT, "the drive takes IPv4 addresses only"},

    {Cause::no_names, EHOSTUNREACH, EHOSTUNREACH, "the drive does not resolve the name"},

    // By connect(2) the socket exists, so that the protocol is supported: there is only no way to get there.
    {Cause::no_datagrams, EPROTONOSUPPORT, ENETUNREACH, "the drive does not carry UDP"},

    // The kernel's own word for a mount whose csdfs ended. Others that say the same: means_no_csdfs().
    {Cause::no_csdfs, ENOTCONN, ENETUNREACH, "no csdfs is there; or it has ended"},
};

// What the mount's file says.
constexpr int file_errno(Cause cause) {
  return program_errnos[static_cast<size_t>(cause)].file;
}

// An errno that a drive named (a vendor-specific status of the first generation, the value of RESET, 0 for
// none), or that came from a port: as a program may see it. Bytes from outside must not steer anybody, so
// some are not passed on:
//  - EAGAIN, EINTR, EINPROGRESS, EALREADY and EISCONN are no end: who reads them tries again, waits, or
//    takes the connection for a good one, and the next read(2) then tells a clean end of file.
//  - What Linux has no such number for. The kernel takes no reply from csdfs with 512 and above, and its
//    caller would wait for ever (fuse_dev_do_write).
//  - ENOSYS: the kernel would not send another OPEN, or fsync(2), to this mount (fuse_file_open).
constexpr int named_errno(uint32_t code) {
  constexpr uint32_t last = 133;  // EHWPOISON; asm-generic/errno.h, Linux 6.12
  switch (code) {
    case EAGAIN:
    case EINTR:
    case EINPROGRESS:
    case EALREADY:
    case EISCONN:
      return file_errno(Cause::reset);
    case ENOSYS:
      return file_errno(Cause::protocol_broken);
    default:
      return code <= last ? static_cast<int>(code) : file_errno(Cause::protocol_broken);
  }
}

// Of an open the drive answered with a failure. `named` is the errno it told, 0 if it told none:
// then it is full if all its relays are in use, was silent if the answer took as long as a time-out
// does, and has refused otherwise.
constexpr int opening_errno(uint32_t named, bool full = false, bool silent = false) {
  if (named != 0) return named_errno(named);
  return file_errno(full ? Cause::drive_full : silent ? Cause::timed_out : Cause::refused);
}

// Of an established connection the drive ended. `named` as above; `peer_ended`: the service's end came
// before.
constexpr int ending_errno(uint32_t named, bool peer_ended) {
  if (named != 0 && named != ECONNRESET) return named_errno(named);
  return file_errno(peer_ended ? Cause::reset_behind_end : Cause::reset);
}

// A command was lost between host and drive (libnvsock/nvme/command.hpp) because there is no drive any more.
// ENXIO is the driver's other word for it, and told as it is.
constexpr bool means_drive_gone(int port_error) {
  return port_error == file_errno(Cause::drive_gone) || port_error == ENXIO;
}

// What connect(2) and its relatives in POSIX, ip(7) and socket(2) tell of; callers are prepared for each.
inline constexpr int connect_knows[] = {
    ECONNREFUSED, ECONNRESET, ETIMEDOUT, EHOSTUNREACH,  EHOSTDOWN,    ENETUNREACH,
    ENETDOWN,     EADDRINUSE, EAGAIN,    EADDRNOTAVAIL, EAFNOSUPPORT, EINTR,
    EACCES,       EPERM,      EMFILE,    ENFILE,        ENOMEM,       ENOBUFS,
};

// What connect(2) through the preload library tells where the mount's file, or open(2) of it, tells `file`.
// Any other than the rows' and those above is ENETUNREACH too: a caller cannot know it, and the drive cannot
// be reached. The library's log has what it was.
constexpr int connect_errno(int file) {
  for (const ProgramErrno& row : program_errnos) {
    if (row.file == file) return row.connect;
  }
  for (const int known : connect_knows) {
    if (known == file) return known;
  }
  return ENETUNREACH;
}

// open(2) failed because its path leads to no running csdfs. An address always has a file in a live mount,
// and ECONNABORTED is the kernel's, of a connection to csdfs that broke while it was asked.
constexpr bool means_no_csdfs(int open_error) {
  return open_error == ENOENT || open_error == ENOTDIR || open_error == ECONNABORTED ||
         open_error == file_errno(Cause::no_csdfs);
}

// What the rows must hold to: they stand in the order of Cause; one errno of the file is one of connect(2);
// and the file's pass named_errno() as they are.
constexpr bool program_errnos_agree() {
  for (size_t i = 0; i < sizeof program_errnos / sizeof *program_errnos; ++i) {
    const ProgramErrno& row = program_errnos[i];
    if (static_cast<size_t>(row.cause) != i || connect_errno(row.file) != row.connect) return false;
    if (named_errno(static_cast<uint32_t>(row.file)) != row.file) return false;
  }
  return true;
}
static_assert(program_errnos_agree());

}  // namespace nvsock
