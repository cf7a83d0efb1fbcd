#include "libnvsock/device_uri.hpp"

#include <algorithm>
#include <cerrno>

#include "libnvsock/base/number.hpp"
#include "libnvsock/base/quoted.hpp"
#include "libnvsock/relay/v1.hpp"

namespace nvsock {
namespace {

constexpr std::string_view controller_prefix = "/dev/nvme";

Error invalid(std::string_view device, const std::string& why) {
  return {EINVAL, "device " + quoted(device) + ": " + why};
}

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Result<unsigned> parse_range(std::string_view device, std::string_view key, std::string_view value,
                             unsigned most) {
  unsigned number = 0;
  if (!parse_number(value, number) || number < 1 || number > most) {
    return invalid(device, std::string(key) + "=" + printable(value) + " is out of range (1-" +
                               std::to_string(most) + ")");
  }
  return number;
}

Result<uint64_t> parse_size(std::string_view device, std::string_view key, std::string_view value) {
  constexpr std::string_view units = "KMG";
  const size_t unit = value.empty() ? std::string_view::npos : units.find(value.back());
  const bool scaled = unit != std::string_view::npos;
  const size_t shift = scaled ? 10 * (unit + 1) : 0;
  uint64_t number = 0;
  if (!parse_number(scaled ? value.substr(0, value.size() - 1) : value, number) || number == 0 ||
      number > UINT64_MAX >> shift) {
    return invalid(device, std::string(key) + "=" + printable(value) +
                               " is not a number of bytes (such as 4096, 64K, 64M, 1G)");
  }
  return number << shift;
}

// Null: the key is another one's.
uint64_t* trigger(FaultOptions& faults, std::string_view key) {
  return key == "reset_every"     ? &faults.reset_every
         : key == "restart_every" ? &faults.restart_every
         : key == "gone_every"    ? &faults.gone_every
                                  : nullptr;
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
  std::optional<std::string_view> relays;  // their range depends on the generation
  std::string_view of_second;              // an option that the first generation does not have
  while (!options.empty()) {
    const size_t ampersand = options.find('&');
    const std::string_view option = options.substr(0, ampersand);
    options = ampersand == std::string_view::npos ? std::string_view() : options.substr(ampersand + 1);
    const size_t equals = option.find('=');
    const std::string_view key = option.substr(0, equals);
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : option.substr(equals + 1);

    if (key == "relays") {
      relays = value;
    } else if (!emulated && key == "passthrough") {
      if (value != "auto" && value != "io_uring" && value != "ioctl") {
        return invalid(text, "passthrough=" + printable(value) + " is unknown (auto, io_uring, ioctl)");
      }
      uri.passthrough = value == "auto"    ? Passthrough::automatic
                        : value == "ioctl" ? Passthrough::ioctl
                                           : Passthrough::io_uring;
    } else if (emulated && key == "dialect") {
      if (value != "v1" && value != "v1-fixed" && value != "v2") {
        return invalid(text, "dialect=" + printable(value) + " is unknown (v1, v1-fixed, v2)");
      }
      uri.emulated.firmware = value == "v2"   ? Firmware::second
                              : value == "v1" ? Firmware::shipped
                                              : Firmware::fixed;
    } else if (emulated && key == "netns") {
      if (!is_netns_name(value))
        return invalid(text, "netns=" + printable(value) + " cannot be a namespace's name");
      uri.emulated.netns = value;
    } else if (emulated && key == "lease") {
      const Result<unsigned> lease = parse_range(text, key, value, DeviceUri::max_lease);
      if (!lease) return lease.error();
      uri.emulated.lease = std::chrono::seconds(*lease);
      of_second = option;
    } else if (emulated && key == "faults") {
      if (!parse_number(value, uri.emulated.faults.seed.emplace())) {
        return invalid(text, "faults=" + printable(value) + " is not a seed (0-18446744073709551615)");
      }
      of_second = option;
    } else if (uint64_t* const every = emulated ? trigger(uri.emulated.faults, key) : nullptr) {
      const Result<uint64_t> size = parse_size(text, key, value);
      if (!size) return size.error();
      *every = *size;
      of_second = option;
    } else {
      return invalid(text,
                     "unknown option " + quoted(option) +
                         (emulated ? " (relays=N, netns=NAME, dialect=v1|v1-fixed|v2, lease=S, faults=SEED, "
                                     "reset_every=SIZE, restart_every=SIZE, gone_every=SIZE)"
                                   : " (relays=N, passthrough=auto|io_uring|ioctl)"));
    }
  }
  const bool second = emulated && uri.emulated.firmware == Firmware::second;
  if (!of_second.empty() && !second) {
    return invalid(text, printable(of_second) +
                             " needs dialect=v2: the first generation loses all at a controller reset");
  }
  if (uri.emulated.firmware == Firmware::shipped) uri.emulated.relays = relay_v1::shipped_relays;
  if (relays) {
    const unsigned most = second ? DeviceUri::max_streams : DeviceUri::max_relays;
    const Result<unsigned> number = parse_range(text, "relays", *relays, most);
    if (!number) return number.error();
    (second ? uri.emulated.streams : emulated ? uri.emulated.relays : uri.relays) = *number;
  }
  if (emulated) uri.relays = uri.emulated.relays;
  return uri;
}

}  // namespace nvsock
