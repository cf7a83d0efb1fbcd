#include "preload/options.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include <algorithm>

#include "preload/ours.hpp"
#include "preload/real.hpp"

namespace nvsock::preload {
namespace {

struct Name {
  int level, name;
};

// What a program may have set before connect() and expects to hold after it.
constexpr Name kCarried[] = {
    {SOL_SOCKET, SO_RCVTIMEO},
    {SOL_SOCKET, SO_SNDTIMEO},
    {SOL_SOCKET, SO_KEEPALIVE},
    {SOL_SOCKET, SO_LINGER},
    {SOL_SOCKET, SO_SNDBUF},
    {SOL_SOCKET, SO_RCVBUF},
    {SOL_SOCKET, SO_RCVLOWAT},
    {SOL_SOCKET, SO_OOBINLINE},
    {SOL_SOCKET, SO_REUSEADDR},
    {SOL_SOCKET, SO_REUSEPORT},
    {SOL_SOCKET, SO_PRIORITY},
    {SOL_SOCKET, SO_DONTROUTE},
    {SOL_SOCKET, SO_BROADCAST},
    {SOL_SOCKET, SO_MARK},
    {IPPROTO_TCP, TCP_NODELAY},
    {IPPROTO_TCP, TCP_CORK},
    {IPPROTO_TCP, TCP_KEEPIDLE},
    {IPPROTO_TCP, TCP_KEEPINTVL},
    {IPPROTO_TCP, TCP_KEEPCNT},
    {IPPROTO_TCP, TCP_USER_TIMEOUT},
    {IPPROTO_TCP, TCP_QUICKACK},
    {IPPROTO_TCP, TCP_SYNCNT},
    {IPPROTO_TCP, TCP_LINGER2},
    {IPPROTO_TCP, TCP_MAXSEG},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
    {IPPROTO_TCP, TCP_CONGESTION},
    {IPPROTO_IP, IP_TOS},
    {IPPROTO_IP, IP_TTL},
    {IPPROTO_IP, IP_MTU_DISCOVER},
    {IPPROTO_IP, IP_RECVERR},
    {IPPROTO_IPV6, IPV6_TCLASS},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    {IPPROTO_IPV6, IPV6_V6ONLY},
};

bool is_buffer_size(int level, int name) {
  return level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVBUF);
}

int answer(const void* known, socklen_t known_size, void* value, socklen_t* size) {
  *size = std::min(*size, known_size);
  memcpy(value, known, *size);
  return 0;
}

int answer(int known, void* value, socklen_t* size) {
  return answer(&known, sizeof known, value, size);
}

int tcp_information(int fd, void* value, socklen_t* size) {
  nvsock_info info{};
  if (!describe(fd, info)) return fail(ENOTCONN);
  tcp_info tcp{};
  tcp.tcpi_state = info.state == NVSOCK_CONNECTED    ? TCP_ESTABLISHED
                   : info.state == NVSOCK_CONNECTING ? TCP_SYN_SENT
                                                     : TCP_CLOSE;
  return answer(&tcp, sizeof tcp, value, size);
}

// What every connection of csdfs has in common, or what the mount's ABI has a question of its own for.
bool answered_here(int fd, int name, void* value, socklen_t* size, int& result) {
  nvsock_info info{};
  int error = 0;
  switch (name) {
    case SO_ERROR:
      result = static_cast<int>(ask(fd, NVSOCK_IOC_ERROR, &error));
      if (result == 0) result = answer(error, value, size);
      return true;
    case SO_ACCEPTCONN:
      result = answer(0, value, size);
      return true;
    case SO_TYPE:
    case SO_DOMAIN:
    case SO_PROTOCOL:
      if (!describe(fd, info)) return false;
      result = answer(name == SO_TYPE     ? info.socket_type
                      : name == SO_DOMAIN ? info.domain
                                          : info.protocol,
                      value, size);
      return true;
    default:
      return false;
  }
}

int get_any(int fd, int level, int name, void* value, socklen_t* size) {
  const int result = real::getsockopt(fd, level, name, value, size);
  return result == -1 && refused_but_ours(fd) ? get_option(fd, level, name, value, size) : result;
}

int set_any(int fd, int level, int name, const void* value, socklen_t size) {
  const int result = real::setsockopt(fd, level, name, value, size);
  return result == -1 && refused_but_ours(fd) ? set_option(fd, level, name, value, size) : result;
}

}  // namespace

int get_option(int fd, int level, int name, void* value, socklen_t* size) {
  if (value == nullptr || size == nullptr) return fail(EFAULT);
  if (static_cast<int>(*size) < 0) return fail(EINVAL);
  int result = 0;
  if (level == SOL_SOCKET && answered_here(fd, name, value, size, result)) return result;

  nvsock_option option{};
  option.level = level;
  option.name = name;
  option.length = std::min<socklen_t>(*size, NVSOCK_OPTION_MAX);
  if (ask(fd, NVSOCK_IOC_GETOPT, &option) == 0) {
    return answer(option.value, std::min<socklen_t>(option.length, NVSOCK_OPTION_MAX), value, size);
  }
  const bool unknown = errno == ENOPROTOOPT;
  return unknown && level == IPPROTO_TCP && name == TCP_INFO ? tcp_information(fd, value, size) : -1;
}

int set_option(int fd, int level, int name, const void* value, socklen_t size) {
  if (value == nullptr && size != 0) return fail(EFAULT);
  if (size > NVSOCK_OPTION_MAX) return fail(EINVAL);
  nvsock_option option{};
  option.level = level;
  option.name = name;
  option.length = size;
  if (size != 0) memcpy(option.value, value, size);
  return static_cast<int>(ask(fd, NVSOCK_IOC_SETOPT, &option));
}

void SavedOptions::collect(int fd, int untouched) {
  static_assert(std::size(kCarried) <= kMaxOptions);
  count_ = 0;
  for (const Name& carried : kCarried) {
    Option& option = options_[count_];
    option = {carried.level, carried.name, kMaxSize, {}};
    unsigned char plain[kMaxSize] = {};
    socklen_t plain_size = kMaxSize;
    if (get_any(fd, carried.level, carried.name, option.value, &option.size) != 0) continue;
    if (get_any(untouched, carried.level, carried.name, plain, &plain_size) != 0) continue;
    if (memcmp(option.value, plain, kMaxSize) == 0) continue;

    // The kernel doubles a buffer size for its bookkeeping when it is set, and reports the double.
    if (is_buffer_size(carried.level, carried.name)) {
      int bytes = 0;
      memcpy(&bytes, option.value, sizeof bytes);
      bytes /= 2;
      memcpy(option.value, &bytes, sizeof bytes);
    }
    ++count_;
  }
}

void SavedOptions::apply(int fd) const {
  for (std::size_t i = 0; i < count_; ++i) {
    const Option& option = options_[i];
    set_any(fd, option.level, option.name, option.value, option.size);
  }
}

NVSOCK_HOOK int getsockopt(int fd, int level, int name, void* value, socklen_t* size) noexcept {
  const Errno saved;
  return saved.kept_on_success(get_any(fd, level, name, value, size));
}

NVSOCK_HOOK int setsockopt(int fd, int level, int name, const void* value, socklen_t size) noexcept {
  const Errno saved;
  return saved.kept_on_success(set_any(fd, level, name, value, size));
}

}  // namespace nvsock::preload
