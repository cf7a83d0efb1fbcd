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

  // While it lives, the calling thread is inside (setns(2), needs CAP_SYS_ADMIN); other threads are not
  // affected. False, with errno: it is not.
  class Visit {
   public:
    explicit Visit(const NetworkNamespace& where);
    ~Visit();
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    explicit operator bool() const { return inside_; }

   private:
    const NetworkNamespace& where_;
    const bool inside_;
  };

  // A non-blocking, close-on-exec socket inside; -1 with errno.
  int make_socket(int family, int type) const;
  // The namespace's own resolv.conf(5), as ip-netns(8) has it, if there is one; empty: the machine's.
  std::string resolv_conf() const;

 private:
  NetworkNamespace() = default;

  std::string name_;
  int inside_ = -1;  // both -1: the process's own namespace
  int outside_ = -1;
};

}  // namespace nvsock::csd
