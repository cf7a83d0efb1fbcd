// Receiving on a connection: recv() and its relatives become readv(), with the flags made up for.
//
//   MSG_DONTWAIT  on a blocking file: NVSOCK_IOC_RECV, which never waits
//   MSG_PEEK      NVSOCK_IOC_RECV; csdfs keeps the bytes, for every process. At most NVSOCK_MESSAGE_MAX
//   MSG_WAITALL   reads until the buffer is full or the stream ends
//   MSG_TRUNC     discards, as TCP does
//   MSG_OOB       EINVAL, as on TCP without urgent data
//   MSG_ERRQUEUE  EAGAIN: it is empty
//
// The sender's address is what TCP tells of it: length 0. There is never ancillary data.
//
// On a flow of datagrams one readv() is one datagram, and the sender is the peer. What a read cannot say,
// such as how long a datagram was that did not fit, NVSOCK_IOC_RECV does; only what exceeds its 16 KiB is
// read after all.
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include <algorithm>
#include <iterator>

#include "preload/addresses.hpp"
#include "preload/descriptor.hpp"
#include "preload/iov.hpp"
#include "preload/ours.hpp"
#include "preload/real.hpp"
#include "preload/signals.hpp"
#include "preload/wait.hpp"

extern "C" [[noreturn]] void __chk_fail();  // libc's "buffer overflow detected"

namespace nvsock::preload {
namespace {

constexpr int kPeekNapMilliseconds = 1;
constexpr std::size_t kDiscardSize = 4096;
constexpr std::size_t kMostPieces = 64;  // of a datagram whose end is watched

// NVSOCK_IOC_RECV into `to`, once. The 16 KiB frame lives in this function alone. `whole`: of a datagram.
[[gnu::noinline]] ssize_t receive_frame(int fd, IovCursor& to, std::uint32_t message_flags,
                                        std::size_t* whole = nullptr) {
  struct {
    nvsock_message head;
    unsigned char payload[NVSOCK_MESSAGE_MAX];
  } frame;
  const auto size = static_cast<std::uint32_t>(std::min<std::size_t>(to.left(), NVSOCK_MESSAGE_MAX));
  frame.head = {static_cast<std::uint32_t>(std::min<std::size_t>(to.left(), UINT32_MAX)), message_flags};
  const long n = ask(fd, NVSOCK_IOC_RECV(size), &frame);
  if (whole != nullptr) *whole = frame.head.length;
  if (n > 0) to.scatter(frame.payload, static_cast<std::size_t>(n));
  return n;
}

ssize_t receive_without_waiting(int fd, IovCursor to) {
  ssize_t total = 0;
  while (to.left() != 0) {
    const std::size_t wanted = std::min<std::size_t>(to.left(), NVSOCK_MESSAGE_MAX);
    const ssize_t n = receive_frame(fd, to, 0);
    if (n < 0 && total == 0) return -1;
    if (n > 0) total += n;
    if (n < static_cast<ssize_t>(wanted)) break;
  }
  return total;
}

// Peeks until there is something or, with MSG_WAITALL, everything. poll() cannot wait for more than there
// is already, so that rare case naps.
ssize_t peek(int fd, const IovCursor to, bool wait, bool all) {
  const auto wanted = static_cast<ssize_t>(std::min<std::size_t>(to.left(), NVSOCK_MESSAGE_MAX));
  Deadline deadline;
  bool ended = false;  // no more will come
  for (bool waited = false;; waited = true) {
    IovCursor here = to;
    const ssize_t n = receive_frame(fd, here, NVSOCK_PEEK);
    if (n == 0 || !wait || (n < 0 && errno != EAGAIN) || n == wanted || (n > 0 && (!all || ended))) return n;
    if (!waited) deadline = Deadline::of_option(fd, SO_RCVTIMEO);
    const int left = deadline.milliseconds_left();
    if (left == 0) return n > 0 ? n : fail(EAGAIN);

    pollfd event{fd, static_cast<short>(n > 0 ? POLLRDHUP : POLLIN), 0};
    const int ready = ::poll(&event, 1, n > 0 ? kPeekNapMilliseconds : left);
    if (ready < 0 && (errno != EINTR || !would_restart(fd, SO_RCVTIMEO))) return n > 0 ? n : -1;
    ended = n > 0 && ready > 0;  // what came just before the end is still to be seen
  }
}

// SO_RCVTIMEO is one time for all of it, where each read() would have its own.
ssize_t receive_all(int fd, IovCursor to) {
  const Deadline deadline = is_nonblocking(fd) ? Deadline() : Deadline::of_option(fd, SO_RCVTIMEO);
  ssize_t total = 0;
  while (to.left() != 0) {
    pollfd more{fd, POLLIN, 0};
    if (total != 0 && deadline.is_set() && ::poll(&more, 1, deadline.milliseconds_left()) <= 0) break;
    const iovec piece = to.piece();
    const ssize_t n =
        restarting(fd, SO_RCVTIMEO, [&] { return real::read(fd, piece.iov_base, piece.iov_len); });
    if (n < 0 && total == 0) return -1;
    if (n <= 0) break;
    total += n;
    to.advance(static_cast<std::size_t>(n));
  }
  return total;
}

ssize_t receive(int fd, const iovec* iov, std::size_t count, int flags);

[[gnu::noinline]] ssize_t discard(int fd, std::size_t size, int flags) {
  char nowhere[kDiscardSize];
  iovec pieces[NVSOCK_MESSAGE_MAX / kDiscardSize + 1];  // all there, and enough for the longest peek
  ssize_t total = 0;
  do {
    std::size_t left = size - static_cast<std::size_t>(total), count = 0;
    for (; left != 0 && count < std::size(pieces); left -= pieces[count++].iov_len) {
      pieces[count] = {nowhere, std::min(left, sizeof nowhere)};
    }
    const ssize_t n = receive(fd, pieces, count, flags & ~MSG_TRUNC);
    if (n < 0 && total == 0) return -1;
    if (n <= 0) break;
    total += n;
  } while ((flags & MSG_WAITALL) != 0 && (flags & MSG_PEEK) == 0 && static_cast<std::size_t>(total) < size);
  return total;
}

ssize_t receive(int fd, const iovec* iov, std::size_t count, int flags) {
  if ((flags & MSG_OOB) != 0) return fail(EINVAL);
  if ((flags & MSG_ERRQUEUE) != 0) return fail(EAGAIN);
  if (count > IOV_MAX) return fail(EMSGSIZE);
  if ((flags & MSG_TRUNC) != 0) return discard(fd, IovCursor(iov, count).left(), flags);

  const bool all = (flags & MSG_WAITALL) != 0;
  if ((flags & (MSG_PEEK | MSG_DONTWAIT)) != 0) {
    const bool nonblocking = is_nonblocking(fd);
    const bool dont_wait = (flags & MSG_DONTWAIT) != 0;
    if ((flags & MSG_PEEK) != 0) return peek(fd, IovCursor(iov, count), !nonblocking && !dont_wait, all);
    if (!nonblocking) return receive_without_waiting(fd, IovCursor(iov, count));
  }
  if (all) return receive_all(fd, IovCursor(iov, count));
  return restarting(fd, SO_RCVTIMEO, [&] { return real::readv(fd, iov, static_cast<int>(count)); });
}

// readv() of one datagram; a byte behind the caller's tells whether it was cut.
ssize_t read_datagram(int fd, const iovec* iov, std::size_t count, bool& cut) {
  const std::size_t size = IovCursor(iov, count).left();
  iovec longer[kMostPieces + 1];
  char behind;
  if (size < NVSOCK_DATAGRAM_MAX && count <= kMostPieces) {
    std::copy(iov, iov + count, longer);
    longer[count++] = {&behind, 1};
    iov = longer;
  }
  const ssize_t n =
      restarting(fd, SO_RCVTIMEO, [&] { return real::readv(fd, iov, static_cast<int>(count)); });
  cut = n > static_cast<ssize_t>(size);
  return cut ? static_cast<ssize_t>(size) : n;
}

ssize_t receive_datagram(int fd, const iovec* iov, std::size_t count, int flags, bool& cut) {
  if ((flags & MSG_OOB) != 0) return fail(EOPNOTSUPP);
  if ((flags & MSG_ERRQUEUE) != 0) return fail(EAGAIN);
  if (count > IOV_MAX) return fail(EMSGSIZE);
  const IovCursor to(iov, count);
  const bool nonblocking = is_nonblocking(fd);
  const bool wait = !nonblocking && (flags & MSG_DONTWAIT) == 0;
  if ((flags & (MSG_PEEK | MSG_TRUNC)) == 0 && (wait || nonblocking) && to.left() != 0) {
    return read_datagram(fd, iov, count, cut);
  }
  Deadline deadline;
  for (bool waited = false;; waited = true) {
    IovCursor here = to;
    std::size_t whole = 0;
    ssize_t n = receive_frame(fd, here, (flags & MSG_PEEK) != 0 ? NVSOCK_PEEK : 0, &whole);
    if (n < 0 && errno == EMSGSIZE) {
      int next = 0;
      ask(fd, NVSOCK_IOC_INQ, &next);
      n = read_datagram(fd, iov, count, cut);
      return n >= 0 && cut && (flags & MSG_TRUNC) != 0 ? next : n;
    }
    if (n >= 0) {
      cut = whole > to.left();
      return (flags & MSG_TRUNC) != 0 ? static_cast<ssize_t>(whole) : n;
    }
    if (errno != EAGAIN || !wait) return n;
    if (!waited) deadline = Deadline::of_option(fd, SO_RCVTIMEO);
    pollfd event{fd, POLLIN, 0};
    const int ready = ::poll(&event, 1, deadline.milliseconds_left());
    if (ready == 0) return fail(EAGAIN);
    if (ready < 0 && (errno != EINTR || !would_restart(fd, SO_RCVTIMEO))) return -1;
  }
}

// Whom the sender is told to be: of a datagram the peer, of bytes nobody.
void tell_sender(Kind kind, int fd, void* from, socklen_t* size) {
  if (kind == Kind::datagram && tell_peer(fd, static_cast<sockaddr*>(from), size) == 0) return;
  *size = 0;
}

ssize_t receive_from(Kind kind, int fd, void* data, std::size_t size, int flags, sockaddr* from,
                     socklen_t* from_size) {
  if (from != nullptr && from_size == nullptr) return fail(EFAULT);
  const iovec piece{data, size};
  bool cut = false;
  const ssize_t n =
      kind == Kind::datagram ? receive_datagram(fd, &piece, 1, flags, cut) : receive(fd, &piece, 1, flags);
  if (n >= 0 && from != nullptr) tell_sender(kind, fd, from, from_size);
  return n;
}

ssize_t receive_message(Kind kind, int fd, msghdr* message, int flags) {
  if (message == nullptr) return fail(EFAULT);
  bool cut = false;
  const ssize_t n = kind == Kind::datagram
                        ? receive_datagram(fd, message->msg_iov, message->msg_iovlen, flags, cut)
                        : receive(fd, message->msg_iov, message->msg_iovlen, flags);
  if (n < 0) return n;
  if (message->msg_name != nullptr) tell_sender(kind, fd, message->msg_name, &message->msg_namelen);
  message->msg_controllen = 0;
  message->msg_flags = cut ? MSG_TRUNC : 0;
  return n;
}

timespec monotonic_now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time;
}

constexpr long kSecond = 1'000'000'000;

// Takes the time since `start` off `timeout`. False: nothing is left of it.
bool reduce(timespec& timeout, const timespec& start, const timespec& now) {
  long seconds = timeout.tv_sec - (now.tv_sec - start.tv_sec);
  long rest = timeout.tv_nsec - (now.tv_nsec - start.tv_nsec);
  if (rest < 0) rest += kSecond, --seconds;
  if (rest >= kSecond) rest -= kSecond, ++seconds;
  const bool left = seconds >= 0;
  timeout = left ? timespec{seconds, rest} : timespec{};
  return left && (seconds != 0 || rest != 0);
}

// read() and readv(), with a socket's way of being interrupted.
template <typename Call>
ssize_t plain_read(int fd, Call call) {
  return restarting(fd, SO_RCVTIMEO, call);
}

}  // namespace

NVSOCK_HOOK ssize_t read(int fd, void* data, size_t size) {
  return plain_read(fd, [&] { return real::read(fd, data, size); });
}

NVSOCK_HOOK ssize_t readv(int fd, const iovec* iov, int count) {
  return plain_read(fd, [&] { return real::readv(fd, iov, count); });
}

NVSOCK_HOOK ssize_t recv(int fd, void* data, size_t size, int flags) {
  const Errno saved;
  const ssize_t result = real::recv(fd, data, size, flags);
  const Kind kind = result == -1 ? refused_kind(fd) : Kind::none;
  if (kind == Kind::none) return result;
  return saved.kept_on_success(receive_from(kind, fd, data, size, flags, nullptr, nullptr));
}

NVSOCK_HOOK ssize_t recvfrom(int fd, void* __restrict data, size_t size, int flags, sockaddr* __restrict from,
                             socklen_t* __restrict from_size) {
  const Errno saved;
  const ssize_t result = real::recvfrom(fd, data, size, flags, from, from_size);
  const Kind kind = result == -1 ? refused_kind(fd) : Kind::none;
  if (kind == Kind::none) return result;
  return saved.kept_on_success(receive_from(kind, fd, data, size, flags, from, from_size));
}

NVSOCK_HOOK ssize_t recvmsg(int fd, msghdr* message, int flags) {
  const Errno saved;
  const ssize_t result = real::recvmsg(fd, message, flags);
  const Kind kind = result == -1 ? refused_kind(fd) : Kind::none;
  if (kind == Kind::none) return result;
  return saved.kept_on_success(receive_message(kind, fd, message, flags));
}

// The timeout is looked at between messages only, as in the kernel.
NVSOCK_HOOK int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  const Errno saved;
  const int result = real::recvmmsg(fd, messages, count, flags, timeout);
  const Kind kind = result == -1 ? refused_kind(fd) : Kind::none;
  if (kind == Kind::none) return result;
  timespec last = monotonic_now();
  unsigned received = 0;
  while (received < count) {
    const ssize_t n = receive_message(kind, fd, &messages[received].msg_hdr, flags & ~MSG_WAITFORONE);
    if (n < 0) break;
    messages[received++].msg_len = static_cast<unsigned>(n);
    if ((flags & MSG_WAITFORONE) != 0) flags |= MSG_DONTWAIT;
    if (timeout == nullptr) continue;
    const timespec now = monotonic_now();
    if (!reduce(*timeout, last, now)) break;
    last = now;
  }
  if (received == 0 && count != 0) return -1;
  saved.restore();
  return static_cast<int>(received);
}

// What a program built with _FORTIFY_SOURCE calls instead.
NVSOCK_HOOK ssize_t __read_chk(int fd, void* data, size_t size, size_t room) {
  if (size > room) __chk_fail();
  return read(fd, data, size);
}

NVSOCK_HOOK ssize_t __recv_chk(int fd, void* data, size_t size, size_t room, int flags) {
  if (size > room) __chk_fail();
  return recv(fd, data, size, flags);
}

NVSOCK_HOOK ssize_t __recvfrom_chk(int fd, void* __restrict data, size_t size, size_t room, int flags,
                                   sockaddr* __restrict from, socklen_t* __restrict from_size) {
  if (size > room) __chk_fail();
  return recvfrom(fd, data, size, flags, from, from_size);
}

}  // namespace nvsock::preload
