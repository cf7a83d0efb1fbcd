// Patterns of places, which rules are made of: HOST:PORT, where either may be * for all.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "libnvsock/base/result.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock {

struct EndpointPattern {
  std::optional<Endpoint> host;  // none: every one. Its port and type mean nothing
  uint16_t port = 0;             // 0: every one

  // An address is compared as the host it is, not as it was spelled; a name only with a name, letter by
  // letter.
  bool matches(const Endpoint& place) const;
};

// HOST is an address, IPv6 in brackets, a name, or *; PORT a number, a service name of this type, or *.
// EINVAL with a sentence.
Result<EndpointPattern> parse_endpoint_pattern(std::string_view text, SocketType type = SocketType::stream);

// An IPv4 address that comes as an IPv6 one (RFC 4291 section 2.5.5.2) is the same host; here it is the
// former.
Endpoint unmapped(Endpoint place);

}  // namespace nvsock
