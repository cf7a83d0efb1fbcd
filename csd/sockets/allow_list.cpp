#include "csd/sockets/allow_list.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "libnvsock/base/quoted.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock::csd {
namespace {

const sockaddr_in& v4(const SocketAddress& address) {
  return reinterpret_cast<const sockaddr_in&>(address.bytes);
}
const sockaddr_in6& v6(const SocketAddress& address) {
  return reinterpret_cast<const sockaddr_in6&>(address.bytes);
}

bool same_host(const SocketAddress& one, const SocketAddress& other) {
  if (one.bytes.ss_family != other.bytes.ss_family) return false;
  return one.bytes.ss_family == AF_INET
             ? v4(one).sin_addr.s_addr == v4(other).sin_addr.s_addr
             : std::memcmp(&v6(one).sin6_addr, &v6(other).sin6_addr, sizeof(in6_addr)) == 0;
}

// An IPv4 address is the same host when it comes as an IPv6 one (RFC 4291 section 2.5.5.2).
SocketAddress unmapped(const SocketAddress& address) {
  if (address.bytes.ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&v6(address).sin6_addr)) return address;
  SocketAddress plain;
  auto& to = reinterpret_cast<sockaddr_in&>(plain.bytes);
  to.sin_family = AF_INET;
  to.sin_port = v6(address).sin6_port;
  std::memcpy(&to.sin_addr, &v6(address).sin6_addr.s6_addr[12], sizeof to.sin_addr);
  plain.size = sizeof to;
  return plain;
}

uint16_t port_of(const SocketAddress& address) {
  return ntohs(address.bytes.ss_family == AF_INET ? v4(address).sin_port : v6(address).sin6_port);
}

}  // namespace

Result<void> AllowList::add(std::string_view text) {
  const auto wrong = [&](const std::string& why) {
    return Error{EINVAL, "allowed address " + quoted(text) + ": " + why};
  };
  const size_t colon = text.rfind(':');
  if (colon == text.npos) return wrong("HOST:PORT is expected");
  const std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  Entry entry;
  if (port != "*") {
    const Result<uint16_t> number = parse_port(port);
    if (!number) return number.error();
    entry.port = *number;
  }
  if (host != "*") {
    const Result<Endpoint> address = parse_host(host);
    if (!address) return address.error();
    entry.address.size = address->to_sockaddr(entry.address.bytes);
    // A name may have other addresses tomorrow, and whoever answers for it would decide what is reached.
    if (entry.address.size == 0) return wrong("an address is expected, not a name");
    entry.address = unmapped(entry.address);
  }
  entries_.push_back(entry);
  return {};
}

bool AllowList::allows(const SocketAddress& address) const {
  const SocketAddress plain = unmapped(address);
  if (entries_.empty()) return empty_ == Empty::everything;
  return std::ranges::any_of(entries_, [&](const Entry& entry) {
    return (entry.address.bytes.ss_family == AF_UNSPEC || same_host(entry.address, plain)) &&
           (entry.port == 0 || entry.port == port_of(plain));
  });
}

}  // namespace nvsock::csd
