// Sending on a connection: send() and its relatives become writev(), with the flags made up for.
//
//   MSG_DONTWAIT  on a blocking file: NVSOCK_IOC_SEND, which never waits
//   MSG_NOSIGNAL  no SIGPIPE; without it EPIPE raises the signal, as plain write() does too
//   MSG_FASTOPEN  connect, then send
//   MSG_OOB       EOPNOTSUPP: the drive's relay has no urgent data, and in-line it would corrupt the stream
//   others        are hints, and ignored; so is ancillary data, as TCP ignores SCM_RIGHTS
//
// On a flow of datagrams one writev() is one datagram. An empty one takes NVSOCK_IOC_SEND, because the kernel
// does not pass on a write of nothing. A destination makes the descriptor the flow to it (become_flow()).
// MSG_MORE is no hint there: ignored, it would make two datagrams of one. EOPNOTSUPP.
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

#include "preload/connect.hpp"
#include "preload/descriptor.hpp"
#include "preload/iov.hpp"
#include "preload/ours.hpp"
#include "preload/real.hpp"
#include "preload/signals.hpp"
#include "preload/wait.hpp"

namespace nvsock::preload {
namespace {

// The frame lives in this function alone, so that no other pays for 16 KiB of stack.
[[gnu::noinline]] ssize_t send_without_waiting(int fd, IovCursor data) {
  struct {
    nvsock_message head;
    unsigned char payload[NVSOCK_MESSAGE_MAX];
  } frame;
  ssize_t sent = 0;
  while (data.left() != 0) {
    const auto size = static_cast<std::uint32_t>(std::min<std::size_t>(data.left(), NVSOCK_MESSAGE_MAX));
    frame.head = {size, 0};
    data.gather(frame.payload, size);
    const long n = ask(fd, NVSOCK_IOC_SEND(size), &frame);
    if (n < 0) return sent != 0 ? sent : -1;
    sent += n;
    if (n < size) break;
  }
  return sent;
}

// FUSE sends at most 256 pages at once, and each piece may touch two more than it fills: with more pieces
// than this a datagram could leave as two.
constexpr std::size_t kMostPieces = 100;

[[gnu::noinline]] ssize_t send_joined(int fd, IovCursor data) {
  unsigned char joined[NVSOCK_DATAGRAM_MAX];
  const std::size_t size = data.left();
  if (size > sizeof joined) return fail(EMSGSIZE);
  data.gather(joined, size);
  return real::write(fd, joined, size);
}

ssize_t send_nothing(int fd, bool wait) {
  Deadline deadline;
  for (bool waited = false;; waited = true) {
    nvsock_message head{};
    const long sent = ask(fd, NVSOCK_IOC_SEND(0), &head);
    if (sent == 0 || errno != EAGAIN || !wait) return sent;
    if (!waited) deadline = Deadline::of_option(fd, SO_SNDTIMEO);
    pollfd room{fd, POLLOUT, 0};
    const int ready = ::poll(&room, 1, deadline.milliseconds_left());
    if (ready == 0) return fail(EAGAIN);
    if (ready < 0 && (errno != EINTR || !would_restart(fd, SO_SNDTIMEO))) return -1;
  }
}

ssize_t send_datagram(int fd, const iovec* iov, std::size_t count, int flags) {
  if ((flags & (MSG_OOB | MSG_MORE)) != 0) return fail(EOPNOTSUPP);
  if (count > IOV_MAX) return fail(EMSGSIZE);
  const bool wait = (flags & MSG_DONTWAIT) == 0 && !is_nonblocking(fd);
  const IovCursor data(iov, count);
  if (data.left() == 0) return send_nothing(fd, wait);
  // Writable is a file that takes the largest datagram.
  pollfd room{fd, POLLOUT, 0};
  if ((flags & MSG_DONTWAIT) != 0 && ::poll(&room, 1, 0) == 0) return fail(EAGAIN);
  return restarting(fd, SO_SNDTIMEO, [&] {
    return count > kMostPieces ? send_joined(fd, data) : real::writev(fd, iov, static_cast<int>(count));
  });
}

ssize_t send_pieces(Kind kind, int fd, const iovec* iov, std::size_t count, int flags) {
  if (kind == Kind::datagram) return send_datagram(fd, iov, count, flags);
  if ((flags & MSG_OOB) != 0) return fail(EOPNOTSUPP);
  if ((flags & MSG_FASTOPEN) != 0) return fail(EISCONN);
  if (count > IOV_MAX) return fail(EMSGSIZE);
  ssize_t sent = 0;
  if ((flags & MSG_DONTWAIT) != 0 && !is_nonblocking(fd)) {
    sent = send_without_waiting(fd, IovCursor(iov, count));
  } else {
    sent = restarting(fd, SO_SNDTIMEO, [&] { return real::writev(fd, iov, static_cast<int>(count)); });
  }
  if (sent == -1 && errno == EPIPE && (flags & MSG_NOSIGNAL) == 0) raise_sigpipe();
  return sent;
}

ssize_t send_bytes(Kind kind, int fd, const void* data, std::size_t size, int flags) {
  const iovec piece{const_cast<void*>(data), size};
  return send_pieces(kind, fd, &piece, 1, flags);
}

// UDP_SEGMENT asks for several datagrams, and must not be taken for one. EIO is what a device without that
// offload answers, and callers fall back.
bool wants_segments(const msghdr& message) {
  for (const cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(const_cast<msghdr*>(&message), const_cast<cmsghdr*>(part))) {
    if (part->cmsg_level == IPPROTO_UDP) return true;
  }
  return false;
}

ssize_t send_message(Kind kind, int fd, const msghdr* message, int flags) {
  if (message == nullptr) return fail(EFAULT);
  if (kind == Kind::datagram && wants_segments(*message)) return fail(EIO);
  return send_pieces(kind, fd, message->msg_iov, message->msg_iovlen, flags);
}

// True: the descriptor could not become the flow to the destination, and errno says why.
bool no_flow(int fd, const void* to, socklen_t to_size) {
  return become_flow(fd, static_cast<const sockaddr*>(to), to_size).value_or(0) != 0;
}

// Fast open of a socket that goes to the mount connects it, and there is nothing fast to be had
// from `flags` any more. Of any other nothing is done: the real function is asked. False: it could
// not be connected, errno says why.
bool fast_open(int fd, const void* to, socklen_t to_size, int& flags) {
  const auto* address = static_cast<const sockaddr*>(to);
  if ((flags & MSG_FASTOPEN) == 0 || !would_route(fd, address, to_size)) return true;
  flags &= ~MSG_FASTOPEN;
  return connect_routed(fd, address, to_size) == 0;
}

// write() and writev(): as before, with the two things that signals do.
template <typename Call>
ssize_t plain_write(int fd, Call call) {
  const ssize_t result = restarting(fd, SO_SNDTIMEO, call);
  if (result == -1 && errno == EPIPE && kind_of(fd) == Kind::stream) raise_sigpipe();
  return result;
}

}  // namespace

NVSOCK_HOOK ssize_t write(int fd, const void* data, size_t size) {
  if (size == 0 && kind_of(fd) == Kind::datagram) return send_bytes(Kind::datagram, fd, data, size, 0);
  return plain_write(fd, [&] { return real::write(fd, data, size); });
}

NVSOCK_HOOK ssize_t writev(int fd, const iovec* iov, int count) {
  if (count > static_cast<int>(kMostPieces) && kind_of(fd) == Kind::datagram) {
    return send_pieces(Kind::datagram, fd, iov, static_cast<std::size_t>(count), 0);
  }
  return plain_write(fd, [&] { return real::writev(fd, iov, count); });
}

NVSOCK_HOOK ssize_t send(int fd, const void* data, size_t size, int flags) {
  const Errno saved;
  const ssize_t result = real::send(fd, data, size, flags);
  const Kind kind = result == -1 ? refused_kind(fd) : Kind::none;
  if (kind == Kind::none) return result;
  return saved.kept_on_success(send_bytes(kind, fd, data, size, flags));
}

NVSOCK_HOOK ssize_t sendto(int fd, const void* data, size_t size, int flags, const sockaddr* to,
                           socklen_t to_size) {
  const Errno saved;
  if (!fast_open(fd, to, to_size, flags)) return -1;
  if (no_flow(fd, to, to_size)) return -1;
  const ssize_t result = real::sendto(fd, data, size, flags, to, to_size);
  const Kind kind = result == -1 ? refused_kind(fd) : Kind::none;
  if (kind == Kind::none) return result;
  return saved.kept_on_success(send_bytes(kind, fd, data, size, flags));
}

NVSOCK_HOOK ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  const Errno saved;
  if (message != nullptr && !fast_open(fd, message->msg_name, message->msg_namelen, flags)) return -1;
  if (message != nullptr && no_flow(fd, message->msg_name, message->msg_namelen)) return -1;
  const ssize_t result = real::sendmsg(fd, message, flags);
  const Kind kind = result == -1 ? refused_kind(fd) : Kind::none;
  if (kind == Kind::none) return result;
  return saved.kept_on_success(send_message(kind, fd, message, flags));
}

// Ends, as the kernel's does, at the first message that fails or goes out in part.
NVSOCK_HOOK int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  const Errno saved;
  if (count != 0 && no_flow(fd, messages->msg_hdr.msg_name, messages->msg_hdr.msg_namelen)) return -1;
  const int result = real::sendmmsg(fd, messages, count, flags);
  const Kind kind = result == -1 ? refused_kind(fd) : Kind::none;
  if (kind == Kind::none) return result;
  unsigned sent = 0;
  for (bool whole = true; whole && sent < std::min<unsigned>(count, IOV_MAX); ++sent) {
    const msghdr& message = messages[sent].msg_hdr;
    if (sent != 0 && no_flow(fd, message.msg_name, message.msg_namelen)) break;
    const ssize_t n = send_message(kind, fd, &message, flags);
    if (n < 0) break;
    messages[sent].msg_len = static_cast<unsigned>(n);
    whole = static_cast<std::size_t>(n) == IovCursor(message.msg_iov, message.msg_iovlen).left();
  }
  if (sent == 0 && count != 0) return -1;
  saved.restore();
  return static_cast<int>(sent);
}

}  // namespace nvsock::preload
