#include "csd/sockets/netns.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace nvsock::csd {

Result<NetworkNamespace> NetworkNamespace::open(const std::string& name) {
  NetworkNamespace result;
  if (name.empty()) return result;
  result.name_ = name;
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
    : name_(std::move(other.name_)),
      inside_(std::exchange(other.inside_, -1)),
      outside_(std::exchange(other.outside_, -1)) {}

NetworkNamespace& NetworkNamespace::operator=(NetworkNamespace&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(inside_, other.inside_);
  std::swap(outside_, other.outside_);
  return *this;
}

NetworkNamespace::~NetworkNamespace() {
  if (inside_ >= 0) close(inside_);
  if (outside_ >= 0) close(outside_);
}

NetworkNamespace::Visit::Visit(const NetworkNamespace& where)
    : where_(where), inside_(where.inside_ < 0 || setns(where.inside_, CLONE_NEWNET) == 0) {}

NetworkNamespace::Visit::~Visit() {
  if (where_.inside_ < 0 || !inside_) return;
  const int code = errno;
  // Going on in the wrong namespace would connect the host's services to the drive's clients.
  if (setns(where_.outside_, CLONE_NEWNET) != 0) std::abort();
  errno = code;
}

int NetworkNamespace::make_socket(int family, int type) const {
  const Visit visit(*this);
  return visit ? socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
}

std::string NetworkNamespace::resolv_conf() const {
  if (name_.empty()) return {};
  std::string path = "/etc/netns/" + name_ + "/resolv.conf";
  return access(path.c_str(), R_OK) == 0 ? path : std::string();
}

}  // namespace nvsock::csd
