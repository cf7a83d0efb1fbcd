#include "preload/options.hpp"

#include <netinet/tcp.h>
#include <string.h>

#include <algorithm>
#include <optional>

#include "preload/connect_error.hpp"
#include "preload/ours.hpp"
#include "preload/real.hpp"

namespace nvsock::preload {
namespace {

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

// What every connection of csdfs has in common, or what the mount's ABI has a question of
// its own for. Nothing: neither.
std::optional<int> answer_here(int fd, int name, void* value, socklen_t* size) {
  nvsock_info info{};
  int error = 0;
  switch (name) {
    case SO_ERROR:
      if (ask(fd, NVSOCK_IOC_ERROR, &error) != 0) return -1;
      // Of a connection that was never established this is the answer to a connect() that did not wait.
      if (error != 0 && describe(fd, info) && info.state == NVSOCK_FAILED) error = told_by_connect(error);
      return answer(error, value, size);
    case SO_ACCEPTCONN:
      return answer(0, value, size);
    case SO_TYPE:
    case SO_DOMAIN:
    case SO_PROTOCOL:
      if (!describe(fd, info)) return std::nullopt;
      return answer(name == SO_TYPE     ? info.socket_type
                    : name == SO_DOMAIN ? info.domain
                                        : info.protocol,
                    value, size);
    default:
      return std::nullopt;
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
  if (level == SOL_SOCKET) {
    if (const std::optional<int> result = answer_here(fd, name, value, size)) return *result;
  }
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
  count_ = 0;
  for (const SocketOption& carried : socket_options) {
    if (carried.carried == Carried::no) continue;
    Option& option = options_[count_];
    option = {carried.level, carried.name, largest_option, {}};
    unsigned char plain[largest_option] = {};
    socklen_t plain_size = largest_option;
    if (get_any(fd, carried.level, carried.name, option.value, &option.size) != 0) continue;
    if (get_any(untouched, carried.level, carried.name, plain, &plain_size) != 0) continue;
    if (memcmp(option.value, plain, largest_option) == 0) continue;

    if (is_told_doubled(carried.level, carried.name)) {
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
