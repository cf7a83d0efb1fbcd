#include "libnvsock/forward/forward_spec.hpp"

#include <algorithm>
#include <cerrno>
#include <set>

#include "libnvsock/base/number.hpp"
#include "libnvsock/base/quoted.hpp"

namespace nvsock {
namespace {

constexpr char form[] = " ([BIND:]PORT:[HOST:]PORT, unix:/PATH:[HOST:]PORT or vsock:PORT:[HOST:]PORT)";

Error wrong(std::string_view whole, const std::string& why) {
  return {EINVAL, why + " in " + quoted(whole)};
}

// At the colons outside of brackets.
std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  size_t start = 0;
  bool bracketed = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '[') bracketed = true;
    if (text[i] == ']') bracketed = false;
    if (text[i] != ':' || bracketed) continue;
    parts.push_back(text.substr(start, i - start));
    start = i + 1;
  }
  parts.push_back(text.substr(start));
  return parts;
}

// No port has such a name, and no address to listen on another.
bool is_bind(std::string_view text) {
  return text == "*" || text == "localhost" || text.find('.') != text.npos || text.starts_with('[');
}

struct Ports {
  std::vector<uint16_t> numbers;  // in their order
  size_t span = 0;                // of the whole range, with what is left out
  uint16_t first = 0;
};

Result<std::pair<uint16_t, uint16_t>> parse_range(std::string_view text) {
  const size_t dash = text.find('-');
  // Names of services have dashes, too.
  const bool is_range = dash != text.npos && text.find_first_not_of("0123456789-") == text.npos;
  const Result<uint16_t> first = parse_port(is_range ? text.substr(0, dash) : text);
  if (!first) return first.error();
  if (!is_range) return std::pair{*first, *first};
  const Result<uint16_t> last = parse_port(text.substr(dash + 1));
  if (!last) return last.error();
  if (*last < *first) return Error{EINVAL, "the range " + quoted(text) + " ends before it begins"};
  return std::pair{*first, *last};
}

Result<Ports> parse_ports(std::string_view text) {
  const std::string_view range_text = text.substr(0, text.find(','));
  const auto range = parse_range(range_text);
  if (!range) return range.error();
  std::set<uint16_t> without;
  for (std::string_view rest = text.substr(range_text.size()); !rest.empty();) {
    rest.remove_prefix(1);
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(item.size());
    if (!item.starts_with('~')) return Error{EINVAL, quoted(item) + " is not ~PORT"};
    const auto excluded = parse_range(item.substr(1));
    if (!excluded) return excluded.error();
    for (unsigned port = excluded->first; port <= excluded->second; ++port)
      without.insert(static_cast<uint16_t>(port));
  }
  Ports ports{.numbers = {}, .span = size_t{range->second} - range->first + 1, .first = range->first};
  for (unsigned port = range->first; port <= range->second; ++port) {
    if (!without.contains(static_cast<uint16_t>(port))) ports.numbers.push_back(static_cast<uint16_t>(port));
  }
  if (ports.numbers.empty()) return Error{EINVAL, "nothing is left of " + quoted(text)};
  if (ports.numbers.size() > max_forwards) {
    return Error{EINVAL, quoted(text) + " is more than " + std::to_string(max_forwards) + " ports"};
  }
  return ports;
}

// [HOST:]PORT, given as one part or two.
Result<Endpoint> parse_inside_host(std::string_view whole, const std::vector<std::string_view>& parts) {
  if (parts.size() == 1) return Endpoint{.kind = Endpoint::Kind::ipv4, .host = "127.0.0.1"};
  if (parts.size() != 2) return wrong(whole, "[HOST:]PORT of the drive's inside is expected");
  Result<Endpoint> host = parse_host(parts[0]);
  if (!host) return wrong(whole, host.error().text);
  return host;
}

Result<std::vector<ForwardSpec>> parse_single(std::string_view whole, ForwardSpec spec,
                                              const std::vector<std::string_view>& inside) {
  Result<Endpoint> host = parse_inside_host(whole, inside);
  if (!host) return host.error();
  const Result<uint16_t> port = parse_port(inside.back());
  if (!port) return wrong(whole, port.error().text);
  spec.inside = std::move(*host);
  spec.inside.port = *port;
  return std::vector<ForwardSpec>{std::move(spec)};
}

Result<std::vector<ForwardSpec>> parse_unix(std::string_view whole) {
  // The path may have colons: what stands behind the last one, or the last two, is the drive's.
  const std::string_view text = whole.substr(5);
  std::vector<std::string_view> parts = split(text);
  const bool has_host =
      parts.size() > 2 && parse_host(parts[parts.size() - 2]) && parts[parts.size() - 2][0] != '/';
  const size_t inside = has_host ? 2 : 1;
  if (parts.size() <= inside) return wrong(whole, "a path and a port are expected");
  const std::string_view path = text.substr(0, parts[parts.size() - inside].data() - text.data() - 1);
  if (!path.starts_with('/')) return wrong(whole, "the path " + quoted(path) + " is not absolute");
  const std::string name = "unix:" + std::string(path);
  return parse_single(whole, {.name = name, .listen = {name}, .inside = {}},
                      {parts.end() - static_cast<ptrdiff_t>(inside), parts.end()});
}

Result<std::vector<ForwardSpec>> parse_vsock(std::string_view whole) {
  std::vector<std::string_view> parts = split(whole.substr(6));
  uint32_t port = 0;
  if (parts.size() < 2 || !parse_number(parts[0], port))
    return wrong(whole, "vsock:PORT:[HOST:]PORT is expected");
  const std::string name = "vsock:" + std::to_string(port);
  parts.erase(parts.begin());
  return parse_single(whole, {.name = name, .listen = {"vsock:any:" + std::to_string(port)}, .inside = {}},
                      parts);
}

// What to listen on; an empty BIND is none.
Result<ForwardSpec> listen_spec(std::string_view bind, uint16_t port) {
  const std::string behind = ":" + std::to_string(port);
  if (bind.empty() || bind == "localhost") {
    return ForwardSpec{
        .name = behind.substr(1), .listen = {"127.0.0.1" + behind, "[::1]" + behind}, .inside = {}};
  }
  if (bind == "*") {
    return ForwardSpec{.name = "*" + behind, .listen = {"0.0.0.0" + behind, "[::]" + behind}, .inside = {}};
  }
  const Result<Endpoint> address = parse_host(bind);
  if (!address) return address.error();
  if (address->kind == Endpoint::Kind::name) {
    return Error{EINVAL, "an address or * is expected to listen on, not " + quoted(bind)};
  }
  const std::string host = address->kind == Endpoint::Kind::ipv6 ? "[" + address->host + "]" : address->host;
  return ForwardSpec{.name = host + behind, .listen = {host + behind}, .inside = {}};
}

}  // namespace

Result<std::vector<ForwardSpec>> parse_forward(std::string_view text) {
  if (text.starts_with("udp/")) return wrong(text, "UDP is not forwarded");
  if (text.starts_with("unix:")) return parse_unix(text);
  if (text.starts_with("vsock:")) return parse_vsock(text);
  std::vector<std::string_view> parts = split(text.starts_with("tcp/") ? text.substr(4) : text);
  const bool has_bind = parts.size() == 4 || (parts.size() == 3 && is_bind(parts[0]));
  const std::string_view bind = has_bind ? parts[0] : std::string_view();
  if (has_bind) parts.erase(parts.begin());
  if (parts.size() != 2 && parts.size() != 3) return Error{EINVAL, quoted(text) + " is no forward" + form};

  Ports outside{.numbers = {0}, .span = 1};
  if (parts[0] != "0") {
    Result<Ports> parsed = parse_ports(parts[0]);
    if (!parsed) return wrong(text, parsed.error().text);
    outside = std::move(*parsed);
  }
  parts.erase(parts.begin());
  Result<Endpoint> host = parse_inside_host(text, parts);
  if (!host) return host.error();
  const auto inside = parse_range(parts.back());
  if (!inside) return wrong(text, inside.error().text);
  const size_t inside_span = size_t{inside->second} - inside->first + 1;
  if (inside_span != outside.span) {
    return wrong(text, std::to_string(outside.span) + " ports of the host cannot lead to " +
                           std::to_string(inside_span));
  }
  std::vector<ForwardSpec> specs;
  for (const uint16_t port : outside.numbers) {
    Result<ForwardSpec> spec = listen_spec(bind, port);
    if (!spec) return wrong(text, spec.error().text);
    spec->inside = *host;
    spec->inside.port = static_cast<uint16_t>(inside->first + (port - outside.first));
    specs.push_back(std::move(*spec));
  }
  return specs;
}

}  // namespace nvsock
