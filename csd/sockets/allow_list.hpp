// Which addresses inside the drive hosts may use. Threads: any.
#pragma once

#include <string_view>
#include <vector>

#include "libnvsock/base/result.hpp"
#include "libnvsock/base/socket_address.hpp"
#include "libnvsock/socket/endpoint_pattern.hpp"

namespace nvsock::csd {

// A list of HOST:PORT.
class AllowList {
 public:
  // What a list without entries allows.
  enum class Empty { everything, nothing };
  explicit AllowList(Empty empty) : empty_(empty) {}

  // HOST is an address, IPv6 in brackets, or * for all; PORT a number, a service name, or * for all. EINVAL
  // with a sentence.
  Result<void> add(std::string_view text);
  // REQUIRES: of family AF_INET or AF_INET6.
  bool allows(const SocketAddress& address) const;

 private:
  Empty empty_;
  std::vector<EndpointPattern> entries_;  // of addresses
};

}  // namespace nvsock::csd
