// Names of places inside the drive: "127.0.0.1:22", "[::1]:80", "db.local:postgresql".
//
// Pure string work: no lookup of names, no input or output but that the service names are read once from the
// host's services database.
//
// Threads: safe on every one.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "libnvsock/base/result.hpp"
#include "libnvsock/base/socket_type.hpp"

namespace nvsock {

struct Endpoint {
  enum class Kind : uint8_t { ipv4, ipv6, name };

  Kind kind = Kind::ipv4;
  std::string host;   // canonical text: dotted quad, RFC 5952 without brackets, or lower-case name
  uint16_t port = 0;  // 1..65535
  SocketType type = SocketType::stream;

  // "127.0.0.1:22", "[::1]:22", "name:22"; the same for both types.
  std::string text() const;
  // "tcp/127.0.0.1:22", "udp/127.0.0.1:53": the name in the mount.
  std::string path() const;
  // Address family of an address; AF_UNSPEC for a name.
  int family() const;
  // Writes the socket address (IPv4 or IPv6) and returns its length; 0 for a name.
  socklen_t to_sockaddr(sockaddr_storage& out) const;
};

// Longest host name taken, bytes (RFC 1035 section 2.3.4).
inline constexpr size_t max_host_length = 253;

// HOST alone: a strict dotted quad, an IPv6 address with or without brackets, or a host name (RFC 1123
// letters, digits, hyphens, dots; underscores as found in practice). EINVAL with a sentence otherwise.
Result<Endpoint> parse_host(std::string_view text);

// PORT alone: 1-65535 in decimal without leading zeros, or a service name of the host's services(5) for TCP
// or UDP.
Result<uint16_t> parse_port(std::string_view text, SocketType type = SocketType::stream);

// HOST:PORT, IPv6 in brackets. EINVAL with a sentence otherwise.
Result<Endpoint> parse_endpoint(std::string_view text, SocketType type = SocketType::stream);

// The place of a socket address. REQUIRES: of family AF_INET or AF_INET6.
Endpoint endpoint_of(const sockaddr_storage& address);

}  // namespace nvsock
