// Sockets that live in another network namespace, so that the drive's 127.0.0.1 is not the host's.
#pragma once

#include <string>

#include "libnvsock/base/result.hpp"

namespace nvsock::csd {

class NetworkNamespace {
 public:
  // NAME as in ip-netns(8), a file under /run/netns; empty for the process's own namespace.
  static Result<NetworkNamespace> open(const std::string& name);

  NetworkNamespace(NetworkNamespace&& other) noexcept;
  NetworkNamespace& operator=(NetworkNamespace&& other) noexcept;
  ~NetworkNamespace();

  // A non-blocking, close-on-exec socket inside; -1 with errno. The calling thread enters the namespace
  // for this one call (setns(2), needs CAP_SYS_ADMIN); other threads are not affected.
  int make_socket(int family, int type) const;
  // Moves the calling thread inside, for good; false with errno. For threads that do nothing else.
  bool enter() const;

 private:
  NetworkNamespace() = default;

  int inside_ = -1;  // both -1: the process's own namespace
  int outside_ = -1;
};

}  // namespace nvsock::csd
