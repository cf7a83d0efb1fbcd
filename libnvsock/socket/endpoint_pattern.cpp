#include "libnvsock/socket/endpoint_pattern.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cerrno>
#include <utility>

#include "libnvsock/base/quoted.hpp"

namespace nvsock {

Endpoint unmapped(Endpoint place) {
  if (place.kind != Endpoint::Kind::ipv6) return place;
  in6_addr v6{};
  inet_pton(AF_INET6, place.host.c_str(), &v6);
  if (!IN6_IS_ADDR_V4MAPPED(&v6)) return place;
  char text[INET_ADDRSTRLEN];
  place.host = inet_ntop(AF_INET, &v6.s6_addr[12], text, sizeof text);
  place.kind = Endpoint::Kind::ipv4;
  return place;
}

bool EndpointPattern::matches(const Endpoint& place) const {
  if (port != 0 && port != place.port) return false;
  if (!host) return true;
  const Endpoint plain = unmapped(place);
  return host->kind == plain.kind && host->host == plain.host;
}

Result<EndpointPattern> parse_endpoint_pattern(std::string_view text, SocketType type) {
  const size_t colon = text.rfind(':');
  if (colon == text.npos) return Error{EINVAL, "HOST:PORT is expected"};
  const std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  EndpointPattern pattern;
  if (port != "*") {
    const Result<uint16_t> number = parse_port(port, type);
    if (!number) return number.error();
    pattern.port = *number;
  }
  if (host != "*") {
    // "::1:22" may mean two things.
    if (host.find(':') != host.npos && host.front() != '[') {
      return Error{EINVAL, "the IPv6 address " + quoted(host) + " needs brackets ([HOST]:PORT)"};
    }
    Result<Endpoint> parsed = parse_host(host);
    if (!parsed) return parsed.error();
    pattern.host = unmapped(std::move(*parsed));
  }
  return pattern;
}

}  // namespace nvsock
