#include "libnvsock/device_uri.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "libnvsock/quoted.hpp"
#include "libnvsock/relay_v1.hpp"

namespace nvsock {
namespace {

constexpr std::string_view controller_prefix = "/dev/nvme";

Error invalid(std::string_view device, const std::string& why) {
  return {EINVAL, "device " + quoted(device) + ": " + why};
}

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Result<unsigned> parse_relays(std::string_view device, std::string_view value) {
  unsigned relays = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), relays);
  if (error != std::errc{} || end != value.data() + value.size() || relays < 1 ||
      relays > DeviceUri::max_relays) {
    return invalid(device, "relays=" + printable(value) + " is out of range (1-" +
                               std::to_string(DeviceUri::max_relays) + ")");
  }
  return relays;
}

// A namespace's name becomes a file name under /run/netns.
bool is_netns_name(std::string_view name) {
  return !name.empty() && name.size() < 256 && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

}  // namespace

Result<DeviceUri> parse_device_uri(std::string_view text) {
  DeviceUri uri;
  uri.text = text;
  if (is_nvme_tcp(text)) {
    uri.kind = DeviceUri::Kind::nvme_tcp;
    Result<NvmeTcpTarget> target = parse_nvme_tcp_target(text);
    if (!target) return invalid(text, target.error().text);
    uri.target = std::move(*target);
    return uri;
  }
  const size_t question = text.find('?');
  const std::string_view base = text.substr(0, question);
  std::string_view options =
      question == std::string_view::npos ? std::string_view() : text.substr(question + 1);

  if (base == "emu:") {
    uri.kind = DeviceUri::Kind::emulated;
  } else if (base.substr(0, controller_prefix.size()) == controller_prefix) {
    uri.kind = DeviceUri::Kind::controller;
    const std::string_view number = base.substr(controller_prefix.size());
    if (!all_digits(number)) {
      return invalid(text, "not a controller; give the controller's own device, such as /dev/nvme0");
    }
    uri.controller = base.substr(5);
    uri.relays = relay_v1::shipped_relays;
  } else {
    return invalid(text,
                   "unknown kind of device; give /dev/nvmeN, nvme-tcp://HOST:PORT/NQN, "
                   "unix:/PATH/NQN, vsock:CID:PORT/NQN or emu:");
  }

  const bool emulated = uri.kind == DeviceUri::Kind::emulated;
  bool relays_given = false;
  while (!options.empty()) {
    const size_t ampersand = options.find('&');
    const std::string_view option = options.substr(0, ampersand);
    options = ampersand == std::string_view::npos ? std::string_view() : options.substr(ampersand + 1);
    const size_t equals = option.find('=');
    const std::string_view key = option.substr(0, equals);
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : option.substr(equals + 1);

    if (key == "relays") {
      const Result<unsigned> relays = parse_relays(text, value);
      if (!relays) return relays.error();
      uri.relays = uri.emulated.relays = *relays;
      relays_given = true;
    } else if (emulated && key == "dialect") {
      if (value != "v1" && value != "v2") {
        return invalid(text, "dialect=" + printable(value) + " is unknown (v1, v2)");
      }
      uri.emulated.shipped = value == "v1";
      uri.emulated.second_generation = value == "v2";
    } else if (emulated && key == "netns") {
      if (!is_netns_name(value))
        return invalid(text, "netns=" + printable(value) + " cannot be a namespace's name");
      uri.emulated.netns = value;
    } else {
      return invalid(text, "unknown option " + quoted(option) +
                               (emulated ? " (relays=N, netns=NAME, dialect=v1|v2)" : " (relays=N)"));
    }
  }
  if (emulated && !relays_given) {
    if (uri.emulated.shipped) uri.emulated.relays = relay_v1::shipped_relays;
    uri.relays = uri.emulated.relays;
  }
  return uri;
}

}  // namespace nvsock
