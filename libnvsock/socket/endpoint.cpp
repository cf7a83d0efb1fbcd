// Parsing is strict on purpose: what one reader takes for octal ("010") or for a short form ("127.1")
// another takes for decimal, and a mount file's name must mean one place only.
#include "libnvsock/socket/endpoint.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include "libnvsock/base/number.hpp"
#include "libnvsock/base/quoted.hpp"

namespace nvsock {
namespace {

Error invalid(std::string text) {
  return {EINVAL, std::move(text)};
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_alpha(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_host_name(std::string_view text) {
  if (text.empty() || text.size() > max_host_length) return false;
  size_t label = 0;
  char previous = '.';
  for (char c : text) {
    if (c == '.') {
      if (label == 0 || previous == '-') return false;
      label = 0;
    } else {
      if (!is_digit(c) && !is_alpha(c) && c != '-' && c != '_') return false;
      if (c == '-' && label == 0) return false;
      if (++label > 63) return false;
    }
    previous = c;
  }
  if (label == 0 || previous == '-') return false;
  // A number at the end is a mistyped address, which a resolver may take in a form of its own: "1.2.3",
  // "0x7f.1" (URL standard, "ends in a number").
  const std::string_view last = text.substr(text.size() - label);
  return !std::all_of(last.begin(), last.end(), is_digit) && last.substr(0, 2) != "0x" &&
         last.substr(0, 2) != "0X";
}

using ServiceNames = std::map<std::string, uint16_t, std::less<>>;

// services(5), read once: a lookup in the mount must not touch files or name services.
const ServiceNames& services(SocketType type) {
  struct Tables {
    ServiceNames tcp, udp;
  };
  static const Tables tables = [] {
    Tables all;
    setservent(0);
    while (const servent* entry = getservent()) {
      const bool udp = std::strcmp(entry->s_proto, "udp") == 0;
      if (!udp && std::strcmp(entry->s_proto, "tcp") != 0) continue;
      ServiceNames& names = udp ? all.udp : all.tcp;
      const auto port = ntohs(static_cast<uint16_t>(entry->s_port));
      names.emplace(entry->s_name, port);
      for (char** alias = entry->s_aliases; *alias != nullptr; ++alias) names.emplace(*alias, port);
    }
    endservent();
    return all;
  }();
  return type == SocketType::datagram ? tables.udp : tables.tcp;
}

}  // namespace

std::string Endpoint::text() const {
  return (kind == Kind::ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::string Endpoint::path() const {
  return (type == SocketType::datagram ? "udp/" : "tcp/") + text();
}

int Endpoint::family() const {
  if (kind == Kind::name) return AF_UNSPEC;
  return kind == Kind::ipv4 ? AF_INET : AF_INET6;
}

socklen_t Endpoint::to_sockaddr(sockaddr_storage& out) const {
  out = {};
  out.ss_family = static_cast<sa_family_t>(family());
  if (kind == Kind::ipv4) {
    auto& address = reinterpret_cast<sockaddr_in&>(out);
    address.sin_port = htons(port);
    inet_pton(AF_INET, host.c_str(), &address.sin_addr);
    return sizeof address;
  }
  if (kind == Kind::ipv6) {
    auto& address = reinterpret_cast<sockaddr_in6&>(out);
    address.sin6_port = htons(port);
    inet_pton(AF_INET6, host.c_str(), &address.sin6_addr);
    return sizeof address;
  }
  return 0;
}

Result<Endpoint> parse_host(std::string_view text) {
  if (text.empty()) return invalid("the host is empty");
  const bool bracketed = text.front() == '[';
  if (bracketed != (text.back() == ']') || (bracketed && text.size() < 3)) {
    return invalid("unbalanced brackets in host " + quoted(text));
  }
  const std::string_view bare = bracketed ? text.substr(1, text.size() - 2) : text;
  if (bare.size() > max_host_length) {
    return invalid("host " + quoted(bare) + " is longer than " + std::to_string(max_host_length) + " bytes");
  }

  Endpoint endpoint;
  const std::string terminated(bare);
  if (terminated.size() != std::strlen(terminated.c_str())) return invalid("host holds a zero byte");
  char canonical[INET6_ADDRSTRLEN];
  in6_addr v6{};
  if (inet_pton(AF_INET6, terminated.c_str(), &v6) == 1) {
    endpoint.kind = Endpoint::Kind::ipv6;
    endpoint.host = inet_ntop(AF_INET6, &v6, canonical, sizeof canonical);
    return endpoint;
  }
  if (bracketed) return invalid(quoted(text) + " is not an IPv6 address");
  in_addr v4{};
  if (inet_pton(AF_INET, terminated.c_str(), &v4) == 1) {
    endpoint.kind = Endpoint::Kind::ipv4;
    endpoint.host = inet_ntop(AF_INET, &v4, canonical, sizeof canonical);
    return endpoint;
  }
  if (!is_host_name(bare)) return invalid(quoted(bare) + " is neither an address nor a host name");
  endpoint.kind = Endpoint::Kind::name;
  endpoint.host = terminated;
  std::transform(endpoint.host.begin(), endpoint.host.end(), endpoint.host.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; });
  return endpoint;
}

Result<uint16_t> parse_port(std::string_view text, SocketType type) {
  if (text.empty()) return invalid("the port is empty");
  if (std::all_of(text.begin(), text.end(), is_digit)) {
    unsigned value = 0;
    if (!parse_number(text, value) || value < 1 || value > 65535) {
      return invalid("port " + quoted(text) + " is out of range (1-65535)");
    }
    if (text.front() == '0') return invalid("port " + quoted(text) + " starts with a zero");
    return static_cast<uint16_t>(value);
  }
  const auto found = services(type).find(text);
  if (found == services(type).end()) {
    return invalid("port " + quoted(text) + " is neither a number nor a service name");
  }
  return found->second;
}

Result<Endpoint> parse_endpoint(std::string_view text, SocketType type) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || (text.front() == '[' && text.find(']') == text.size() - 1)) {
    return invalid("no port in " + quoted(text) + " (HOST:PORT)");
  }
  const std::string_view host = text.substr(0, colon);
  if (host.find(':') != std::string_view::npos && (host.front() != '[' || host.back() != ']')) {
    return invalid("the IPv6 address in " + quoted(text) + " needs brackets ([HOST]:PORT)");
  }
  Result<Endpoint> endpoint = parse_host(host);
  if (!endpoint) return endpoint;
  const Result<uint16_t> port = parse_port(text.substr(colon + 1), type);
  if (!port) return Error{port.error().code, port.error().text + " in " + quoted(text)};
  endpoint->port = *port;
  endpoint->type = type;
  return endpoint;
}

Endpoint endpoint_of(const sockaddr_storage& address) {
  Endpoint where;
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET6) {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(address);
    where.kind = Endpoint::Kind::ipv6;
    where.port = ntohs(in6.sin6_port);
    inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
  } else {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    where.port = ntohs(in.sin_port);
    inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
  }
  where.host = text;
  return where;
}

}  // namespace nvsock
