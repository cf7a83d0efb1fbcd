// An IPv4 or IPv6 address with a port, taken from what the caller gave connect(). A value; allocates nothing.
//
// Threads: any, signal handlers too.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <cstdint>

#include "preload/text.hpp"

namespace nvsock::preload {

struct Destination {
  int family = AF_UNSPEC;         // AF_INET, AF_INET6; AF_UNSPEC: nothing that we route
  std::uint8_t address[16] = {};  // network order; IPv4 uses the first four
  std::uint16_t port = 0;         // host order
  bool mapped = false;            // came as ::ffff:a.b.c.d, is kept as IPv4
};

// The same place; how it was written does not matter.
inline bool operator==(const Destination& a, const Destination& b) {
  return a.family == b.family && a.port == b.port && memcmp(a.address, b.address, sizeof a.address) == 0;
}

// One address that datagrams come back from. Multicast and broadcast are answered from others.
inline bool is_unicast(const Destination& to) {
  if (to.family == AF_INET6) return to.address[0] != 0xff;
  return to.address[0] < 224 && to.address[0] != 0;
}

// Sizes are checked as the kernel checks them: an IPv6 address may lack its scope (RFC 2133).
inline Destination destination_of(const sockaddr* from, socklen_t size) {
  Destination to;
  if (from == nullptr || size < sizeof(sa_family_t)) return to;
  if (from->sa_family == AF_INET && size >= sizeof(sockaddr_in)) {
    sockaddr_in v4;
    memcpy(&v4, from, sizeof v4);
    memcpy(to.address, &v4.sin_addr, 4);
    to.port = ntohs(v4.sin_port);
    to.family = AF_INET;
  } else if (from->sa_family == AF_INET6 && size >= offsetof(sockaddr_in6, sin6_scope_id)) {
    sockaddr_in6 v6;
    memcpy(&v6, from, offsetof(sockaddr_in6, sin6_scope_id));
    to.port = ntohs(v6.sin6_port);
    to.mapped = IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr);
    to.family = to.mapped ? AF_INET : AF_INET6;
    memcpy(to.address, v6.sin6_addr.s6_addr + (to.mapped ? 12 : 0), to.mapped ? 4 : 16);
  }
  return to;
}

// "127.0.0.1:22" or "[::1]:22": the name of the file in MOUNT/tcp or MOUNT/udp, and what the log shows.
template <std::size_t N>
Text<N>& operator<<(Text<N>& text, const Destination& to) {
  char address[INET6_ADDRSTRLEN] = "?";
  inet_ntop(to.family, to.address, address, sizeof address);
  if (to.family == AF_INET6) return text << "[" << address << "]:" << to.port;
  return text << address << ":" << to.port;
}

}  // namespace nvsock::preload
