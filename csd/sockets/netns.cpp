#include "csd/sockets/netns.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace nvsock::csd {

Result<NetworkNamespace> NetworkNamespace::open(const std::string& name) {
  NetworkNamespace result;
  if (name.empty()) return result;
  const std::string path = "/run/netns/" + name;
  result.inside_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (result.inside_ < 0) {
    const int code = errno;
    return Error{code, "network namespace \"" + name + "\": " + path + ": " + std::strerror(code) +
                           " (make it with: ip netns add " + name + ")"};
  }
  result.outside_ = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (result.outside_ < 0 || setns(result.inside_, CLONE_NEWNET) != 0 ||
      setns(result.outside_, CLONE_NEWNET) != 0) {
    const int code = errno;
    return Error{code, "network namespace \"" + name + "\" cannot be entered: " + std::strerror(code)};
  }
  return result;
}

NetworkNamespace::NetworkNamespace(NetworkNamespace&& other) noexcept
    : inside_(std::exchange(other.inside_, -1)), outside_(std::exchange(other.outside_, -1)) {}

NetworkNamespace& NetworkNamespace::operator=(NetworkNamespace&& other) noexcept {
  std::swap(inside_, other.inside_);
  std::swap(outside_, other.outside_);
  return *this;
}

NetworkNamespace::~NetworkNamespace() {
  if (inside_ >= 0) close(inside_);
  if (outside_ >= 0) close(outside_);
}

bool NetworkNamespace::enter() const {
  return inside_ < 0 || setns(inside_, CLONE_NEWNET) == 0;
}

int NetworkNamespace::make_socket(int family, int type) const {
  const int flags = type | SOCK_NONBLOCK | SOCK_CLOEXEC;
  if (inside_ < 0) return socket(family, flags, 0);
  if (setns(inside_, CLONE_NEWNET) != 0) return -1;
  const int fd = socket(family, flags, 0);
  const int code = errno;
  // Going on in the wrong namespace would connect the host's services to the drive's clients.
  if (setns(outside_, CLONE_NEWNET) != 0) std::abort();
  errno = code;
  return fd;
}

}  // namespace nvsock::csd
