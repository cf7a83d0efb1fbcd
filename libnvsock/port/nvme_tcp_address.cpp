#include "libnvsock/port/nvme_tcp_address.hpp"

#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <span>

namespace nvsock {
namespace {

using Transport = NvmeTcpAddress::Transport;

constexpr struct {
  std::string_view text;
  Transport transport;
} prefixes[] = {
    {"nvme-tcp://", Transport::tcp}, {"unix:", Transport::unix_socket}, {"vsock:", Transport::vsock}};

Error invalid(std::string text) {
  return {EINVAL, std::move(text)};
}

// NVMe Base Specification 2.0, section 4.5.
bool is_nqn(std::string_view name) {
  return name.size() > 4 && name.starts_with("nqn.") && name.size() <= nvme::max_nqn &&
         std::ranges::all_of(name, [](char c) { return c > 0x20 && c < 0x7f; });
}

std::optional<nvme_tcp::Digests> parse_digests(std::string_view text) {
  nvme_tcp::Digests digests;
  if (text == "none") return digests;
  do {
    const std::string_view one = take_until(text, ',');
    if (one != "header" && one != "data") return std::nullopt;
    (one == "header" ? digests.header : digests.data) = true;
  } while (!text.empty());
  return digests;
}

Result<void> parse_place(std::string_view place, NvmeTcpAddress& address) {
  if (address.transport == Transport::tcp) {
    const Result<Endpoint> endpoint = parse_endpoint(place);
    if (!endpoint) return endpoint.error();
    address.endpoint = *endpoint;
  } else if (address.transport == Transport::unix_socket) {
    constexpr size_t longest = sizeof sockaddr_un::sun_path - 1;
    if (!place.starts_with('/') || place.size() > longest || place.find('\0') != std::string_view::npos) {
      return invalid(quoted(place) + " is not an absolute path of at most " + std::to_string(longest) +
                     " bytes");
    }
    address.path = place;
  } else {
    const std::string_view cid = take_until(place, ':');
    if (!parse_number(cid, address.cid) || !parse_number(place, address.vsock_port)) {
      return invalid("a vsock address is CID:PORT, two numbers");
    }
  }
  return {};
}

}  // namespace

bool is_nvme_tcp(std::string_view uri) {
  return std::ranges::any_of(prefixes, [&](const auto& prefix) { return uri.starts_with(prefix.text); });
}

Result<NvmeTcpAddress> parse_nvme_tcp_address(std::string_view uri) {
  const auto* const prefix =
      std::ranges::find_if(prefixes, [&](const auto& known) { return uri.starts_with(known.text); });
  if (prefix == std::end(prefixes)) return invalid("not the address of an NVMe/TCP target");
  NvmeTcpAddress address;
  address.transport = prefix->transport;

  UriReader reader(uri.substr(prefix->text.size()));
  const std::string_view base = reader.base();
  const size_t slash = address.transport == Transport::unix_socket ? base.rfind("/nqn.") : base.find('/');
  if (slash == std::string_view::npos) {
    return invalid("no subsystem's name; it stands behind a slash, such as /nqn.2014-08.org.example:csd");
  }
  address.subsystem = base.substr(slash + 1);
  if (!is_nqn(address.subsystem)) {
    return invalid(quoted(address.subsystem) + " is not a subsystem's name (nqn. and so on, at most " +
                   std::to_string(nvme::max_nqn) + " bytes)");
  }
  const Result<void> place = parse_place(base.substr(0, slash), address);
  if (!place) return place.error();

  while (const auto option = reader.next()) {
    const auto& [text, key, value] = *option;
    if (key == "hostnqn") {
      if (!is_nqn(value)) return invalid("hostnqn=" + printable(value) + " is not a host's name (nqn. ...)");
      address.host = value;
    } else if (key == "digests") {
      address.digests = parse_digests(value);
      if (!address.digests) {
        return invalid("digests=" + printable(value) + " is unknown (header, data, header,data or none)");
      }
    } else if (key == "tls-key") {
      if (value.empty() || value.find('\0') != std::string_view::npos) {
        return invalid("tls-key=" + printable(value) + " is not the name of a file");
      }
      address.tls_key = value;
    } else if (key == "tls-identity") {
      if (!parse_number(value, address.tls_identity) || address.tls_identity > 1) {
        return invalid("tls-identity=" + printable(value) + " is not a version of PSK identities (0 or 1)");
      }
    } else {
      return unknown_option(*option, nvme_tcp_options);
    }
  }
  return address;
}

}  // namespace nvsock
