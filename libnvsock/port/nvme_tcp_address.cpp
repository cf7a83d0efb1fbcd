#include "libnvsock/port/nvme_tcp_address.hpp"

#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <span>

#include "libnvsock/base/number.hpp"
#include "libnvsock/base/quoted.hpp"

namespace nvsock {
namespace {

using Transport = NvmeTcpTarget::Transport;

constexpr struct {
  std::string_view text;
  Transport transport;
} prefixes[] = {
    {"nvme-tcp://", Transport::tcp}, {"unix:", Transport::unix_socket}, {"vsock:", Transport::vsock}};

Error invalid(std::string text) {
  return {EINVAL, std::move(text)};
}

// What stands before `mark`, which is dropped with it; all of it if there is no mark.
std::string_view take_until(std::string_view& text, char mark) {
  const size_t at = text.find(mark);
  const std::string_view taken = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view() : text.substr(at + 1);
  return taken;
}

// NVMe Base Specification 2.0, section 4.5.
bool is_nqn(std::string_view name) {
  return name.size() > 4 && name.starts_with("nqn.") && name.size() <= nvme::max_nqn &&
         std::ranges::all_of(name, [](char c) { return c > 0x20 && c < 0x7f; });
}

bool parse_digests(std::string_view text, nvme_tcp::Digests& digests) {
  digests = {};
  if (text == "none") return true;
  do {
    const std::string_view one = take_until(text, ',');
    if (one != "header" && one != "data") return false;
    (one == "header" ? digests.header : digests.data) = true;
  } while (!text.empty());
  return true;
}

// Empty: the place is right.
std::string parse_place(std::string_view place, NvmeTcpTarget& target) {
  if (target.transport == Transport::tcp) {
    const Result<Endpoint> endpoint = parse_endpoint(place);
    if (!endpoint) return endpoint.error().text;
    target.endpoint = *endpoint;
  } else if (target.transport == Transport::unix_socket) {
    constexpr size_t longest = sizeof sockaddr_un::sun_path - 1;
    if (!place.starts_with('/') || place.size() > longest || place.find('\0') != std::string_view::npos) {
      return quoted(place) + " is not an absolute path of at most " + std::to_string(longest) + " bytes";
    }
    target.path = place;
  } else {
    const std::string_view cid = take_until(place, ':');
    if (!parse_number(cid, target.cid) || !parse_number(place, target.vsock_port)) {
      return "a vsock address is CID:PORT, two numbers";
    }
  }
  return {};
}

}  // namespace

bool is_nvme_tcp(std::string_view uri) {
  return std::ranges::any_of(prefixes, [&](const auto& prefix) { return uri.starts_with(prefix.text); });
}

Result<NvmeTcpTarget> parse_nvme_tcp_target(std::string_view uri) {
  const auto* const prefix =
      std::ranges::find_if(prefixes, [&](const auto& known) { return uri.starts_with(known.text); });
  if (prefix == std::end(prefixes)) return invalid("not the address of an NVMe/TCP target");
  NvmeTcpTarget target;
  target.transport = prefix->transport;

  std::string_view options = uri.substr(prefix->text.size());
  const std::string_view base = take_until(options, '?');
  const size_t slash = target.transport == Transport::unix_socket ? base.rfind("/nqn.") : base.find('/');
  if (slash == std::string_view::npos) {
    return invalid("no subsystem's name; it stands behind a slash, such as /nqn.2014-08.org.example:csd");
  }
  target.subsystem = base.substr(slash + 1);
  if (!is_nqn(target.subsystem)) {
    return invalid(quoted(target.subsystem) + " is not a subsystem's name (nqn. and so on, at most " +
                   std::to_string(nvme::max_nqn) + " bytes)");
  }
  if (std::string why = parse_place(base.substr(0, slash), target); !why.empty()) {
    return invalid(std::move(why));
  }

  while (!options.empty()) {
    const std::string_view option = take_until(options, '&');
    std::string_view value = option;
    const std::string_view key = take_until(value, '=');
    if (key == "hostnqn") {
      if (!is_nqn(value)) return invalid("hostnqn=" + printable(value) + " is not a host's name (nqn. ...)");
      target.host = value;
    } else if (key == "digests") {
      if (!parse_digests(value, target.digests)) {
        return invalid("digests=" + printable(value) + " is unknown (header, data, header,data or none)");
      }
    } else if (key == "tls-key") {
      if (value.empty() || value.find('\0') != std::string_view::npos) {
        return invalid("tls-key=" + printable(value) + " is not the name of a file");
      }
      target.tls_key = value;
    } else if (key == "tls-identity") {
      if (!parse_number(value, target.tls_identity) || target.tls_identity > 1) {
        return invalid("tls-identity=" + printable(value) + " is not a version of PSK identities (0 or 1)");
      }
    } else {
      return invalid("unknown option " + quoted(option) +
                     " (hostnqn=NQN, digests=header,data, tls-key=FILE, tls-identity=0|1)");
    }
  }
  return target;
}

}  // namespace nvsock
