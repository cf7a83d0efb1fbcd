// connect(): the mount file takes the socket's place under the same number.
//
//   socket (closed) --connect()--> mount file CONNECTING --> CONNECTED
//        ^                                |
//        +-- connect() after failure -- FAILED
//
// The file is always opened non-blocking and put in place at once, and a blocking connect() then waits for
// it by poll(). A blocking open() would do less: interrupted, or out of SO_SNDTIMEO, it would leave an
// unconnected socket, which polls as writable with no error, while TCP goes on connecting. This way whoever
// is interrupted may poll, ask for SO_ERROR or call connect() again, as with TCP. And nothing of ours is
// open while we wait: a signal handler that jumps out leaks nothing.
//
// A duplicate of the socket made before connect() stays what it was: this is one difference that remains.
//
// UDP sockets go the same way. Their connect() never leaves with EINPROGRESS, which no caller expects, but
// waits for the drive's answer, and may be repeated: a flow to another address takes the place. An
// unconnected socket becomes a flow with the first datagram that is sent to a routed address.
#include "preload/connect.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include <utility>

#include "preload/connect_error.hpp"
#include "preload/destination.hpp"
#include "preload/epoll_rearm.hpp"
#include "preload/log.hpp"
#include "preload/mount.hpp"
#include "preload/options.hpp"
#include "preload/real.hpp"
#include "preload/settings.hpp"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

namespace nvsock::preload {
namespace {

int integer_option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return real::getsockopt(fd, level, name, &value, &size) == 0 ? value : -1;
}

// A UDP socket, or a TCP socket that has neither connected nor begun to, nor listens, of the family that fits
// the address. All others are the real connect()'s, which knows what to answer.
bool can_replace(int fd, int type, const sockaddr* to, const Destination& destination) {
  const int protocol = integer_option(fd, SOL_SOCKET, SO_PROTOCOL);
  if (type == SOCK_DGRAM) {
    if (protocol != IPPROTO_UDP || destination.port == 0 || !is_unicast(destination)) return false;
  } else if (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP) {
    return false;
  }
  if (integer_option(fd, SOL_SOCKET, SO_DOMAIN) != to->sa_family) return false;
  if (destination.mapped && integer_option(fd, IPPROTO_IPV6, IPV6_V6ONLY) != 0) return false;
  if (type == SOCK_DGRAM) return true;
  tcp_info tcp{};
  socklen_t size = sizeof tcp;
  return real::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &tcp, &size) != 0 || tcp.tcpi_state == TCP_CLOSE;
}

void carry_owner(int from, int to) {
  f_owner_ex owner{};
  if (::fcntl(from, F_GETOWN_EX, &owner) == 0 && owner.pid != 0) ::fcntl(to, F_SETOWN_EX, &owner);
  const int signal = ::fcntl(from, F_GETSIG);
  if (signal > 0) ::fcntl(to, F_SETSIG, signal);
}

// `file` takes the number `fd`, keeping its close-on-exec flag, and is closed under its own.
int put_in_place(Descriptor file, int fd) {
  const int flags = ::fcntl(fd, F_GETFD);
  if (flags < 0) return -1;
  return ::dup3(file.get(), fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0) < 0 ? -1 : 0;
}

// A new socket in the place of our file: connect() is about to start afresh.
int become_socket(int fd, int domain, int type) {
  Descriptor socket(::syscall(SYS_socket, domain, type | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return -1;
  SavedOptions options;
  options.collect(fd, socket.get());
  options.apply(socket.get());
  ::fcntl(socket.get(), F_SETFL, ::fcntl(fd, F_GETFL) & O_NONBLOCK);
  carry_owner(fd, socket.get());
  EpollRegistrations registrations;
  registrations.find(fd);
  if (put_in_place(std::move(socket), fd) != 0) return -1;
  registrations.restore(fd);
  return 0;
}

// Done with before the mount file is opened: one descriptor must be free for a connect(), not two.
SavedOptions options_of(int fd, int domain, int type) {
  SavedOptions options;
  const Descriptor untouched(::syscall(SYS_socket, domain, type | SOCK_CLOEXEC, 0));
  if (untouched.valid()) options.collect(fd, untouched.get());
  return options;
}

int logged(int type, const Destination& to, std::string_view where, int result) {
  const int error = errno;
  log_line([&](LogText& line) {
    line << "connect " << (type == SOCK_DGRAM ? "udp/" : "") << to << " -> " << where << ": ";
    const char* name = ::strerrorname_np(error);
    line << (result == 0 ? "connected" : name != nullptr ? name : "error");
  });
  return result;
}

int connect_network(int fd, const sockaddr* to, socklen_t size, const Destination& destination) {
  const int result = real::connect(fd, to, size);
  if (!logging() || destination.family == AF_UNSPEC) return result;
  const Errno saved;
  const int type = integer_option(fd, SOL_SOCKET, SO_TYPE);
  const bool told = type == SOCK_STREAM || (type == SOCK_DGRAM && settings().routes.names_datagrams());
  saved.restore();
  return told ? logged(type, destination, "network", result) : result;
}

int connect_mount(int fd, int type, const Destination& destination, const SavedOptions& options,
                  Opened& opened) {
  const int file = opened.file.get();
  const bool blocking = !is_nonblocking(fd);
  if (destination.mapped) {
    const int domain = AF_INET6;  // the caller's socket: names are told as ::ffff:a.b.c.d
    set_option(file, SOL_SOCKET, SO_DOMAIN, &domain, sizeof domain);
  }
  options.apply(file);
  carry_owner(fd, file);
  if (blocking) ::fcntl(file, F_SETFL, ::fcntl(file, F_GETFL) & ~O_NONBLOCK);
  EpollRegistrations registrations;
  registrations.find(fd);
  if (put_in_place(std::move(opened.file), fd) != 0) return -1;
  registrations.restore(fd);
  return blocking || type == SOCK_DGRAM ? wait_connected(fd) : fail(EINPROGRESS);
}

Verdict verdict_for(int fd, int type, const sockaddr* to, const Destination& destination) {
  if (destination.family == AF_UNSPEC || (type != SOCK_STREAM && type != SOCK_DGRAM)) return Verdict::network;
  const Verdict verdict = settings().routes.decide(destination, type);
  return verdict != Verdict::network && !can_replace(fd, type, to, destination) ? Verdict::network : verdict;
}

int connect_socket(int fd, const sockaddr* to, socklen_t size) {
  const Destination destination = destination_of(to, size);
  const int type = integer_option(fd, SOL_SOCKET, SO_TYPE);
  const Verdict verdict = verdict_for(fd, type, to, destination);
  if (verdict == Verdict::network) return connect_network(fd, to, size, destination);
  if (verdict == Verdict::refuse) {
    fail(ENETUNREACH);
    return logged(type, destination, "refused by NVSOCK_ROUTE", -1);
  }
  if (destination.port == 0) {  // no service is there, and no file in the mount
    fail(ECONNREFUSED);
    return logged(type, destination, "no port", -1);
  }
  const SavedOptions options = options_of(fd, to->sa_family, type);
  Text<INET6_ADDRSTRLEN + 16> name;
  name << (type == SOCK_DGRAM ? "udp/" : "tcp/") << destination;
  Opened opened = open_connection(name.view(), O_NONBLOCK);
  if (opened.missing && verdict == Verdict::mount_or_network) {
    return connect_network(fd, to, size, destination);
  }
  const int result =
      opened.file.valid() ? connect_mount(fd, type, destination, options, opened) : fail(opened.error);
  return logged(type, destination, settings().mount.view(), result);
}

// connect() on what is already ours: the states of Linux's inet_stream_connect(), with one difference. TCP
// answers 0 to the first connect() after a non-blocking one succeeded and EISCONN to later ones; here it is
// EISCONN at once, which callers that poll by connect() have to accept in any case.
int connect_again(int fd, const sockaddr* to, socklen_t size) {
  nvsock_info info{};
  if (!describe(fd, info)) return fail(no_csdfs);
  if (to != nullptr && size >= sizeof(sa_family_t) && to->sa_family == AF_UNSPEC) {
    return become_socket(fd, info.domain, info.socket_type);
  }
  if (info.socket_type == SOCK_DGRAM) {
    return become_socket(fd, info.domain, SOCK_DGRAM) == 0 ? connect_socket(fd, to, size) : -1;
  }
  if (info.state == NVSOCK_CONNECTED) return fail(EISCONN);
  if (info.state == NVSOCK_CONNECTING) return is_nonblocking(fd) ? fail(EALREADY) : wait_connected(fd);

  const int error = take_connect_error(fd);
  if (error != 0) return fail(error);
  return become_socket(fd, info.domain, SOCK_STREAM) == 0 ? connect_socket(fd, to, size) : -1;
}

bool goes_to(int fd, const Destination& destination) {
  nvsock_address peer{};
  return ask(fd, NVSOCK_IOC_PEER, &peer) == 0 &&
         destination_of(reinterpret_cast<const sockaddr*>(&peer.address), peer.length) == destination;
}

}  // namespace

bool would_route(int fd, const sockaddr* to, socklen_t size) {
  if (!hooks_active()) return false;
  const Errno saved;
  const int type = integer_option(fd, SOL_SOCKET, SO_TYPE);
  const bool routed = verdict_for(fd, type, to, destination_of(to, size)) != Verdict::network;
  saved.restore();
  return routed;
}

std::optional<int> become_flow(int fd, const sockaddr* to, socklen_t size) {
  if (to == nullptr || !settings().routes.names_datagrams() || !hooks_active()) return std::nullopt;
  const Kind kind = kind_of(fd);
  if (kind == Kind::stream) return std::nullopt;
  const Errno saved;
  if (kind == Kind::datagram) {
    if (goes_to(fd, destination_of(to, size))) return saved.kept_on_success(0);
    nvsock_info info{};
    if (!describe(fd, info)) return fail(no_csdfs);
    if (become_socket(fd, info.domain, SOCK_DGRAM) != 0) return -1;
  }
  if (integer_option(fd, SOL_SOCKET, SO_TYPE) == SOCK_DGRAM && would_route(fd, to, size)) {
    return saved.kept_on_success(connect_socket(fd, to, size));
  }
  saved.restore();
  return std::nullopt;
}

int connect_routed(int fd, const sockaddr* to, socklen_t size) {
  settings();  // for callers that run before our constructor
  if (!hooks_active()) return real::connect(fd, to, size);
  const Errno saved;
  return saved.kept_on_success(is_ours(fd) ? connect_again(fd, to, size) : connect_socket(fd, to, size));
}

NVSOCK_HOOK int connect(int fd, const sockaddr* to, socklen_t size) {
  return connect_routed(fd, to, size);
}

}  // namespace nvsock::preload
