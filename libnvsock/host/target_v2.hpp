// An endpoint as OPEN and LISTEN name it (docs/relay-protocol.md section 4).
//
// Threads: pure, safe on every thread.
#pragma once

#include "libnvsock/relay/v2.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock {

// Refers to the endpoint's host, which must outlive it. A name is asked for in any family.
inline relay_v2::Target target_of(const Endpoint& where) {
  using Kind = Endpoint::Kind;
  return {.type = where.type,
          .family = where.kind == Kind::ipv4   ? relay_v2::Family::ipv4
                    : where.kind == Kind::ipv6 ? relay_v2::Family::ipv6
                                               : relay_v2::Family::any,
          .port = where.port,
          .node = where.host};
}

}  // namespace nvsock
