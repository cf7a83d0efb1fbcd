#include "libnvsock/device_uri.hpp"

#include <cerrno>

#include "libnvsock/base/quoted.hpp"
#include "libnvsock/relay/v1.hpp"

namespace nvsock {
namespace {

constexpr KnownDevice devices[] = {
    {"/dev/nvmeN", "a drive of this host, by its controller", controller_options},
    {"nvme-tcp://HOST:PORT/NQN", "a drive on the network, by its subsystem", {}},
    {"unix:/PATH/NQN", "the same through a unix socket", {}},
    {"vsock:CID:PORT/NQN", "the same through vsock", nvme_tcp_options},
    {"emu:", "an emulated drive", emulated_options},
};

std::string forms() {
  std::string text;
  for (const KnownDevice& device : devices) {
    if (&device != devices) text += &device == std::end(devices) - 1 ? " or " : ", ";
    text += device.form;
  }
  return text;
}

template <typename Address>
Result<DeviceUri> with(std::string_view text, Result<Address> address) {
  if (!address) return Error{address.error().code, "device " + quoted(text) + ": " + address.error().text};
  return DeviceUri{.text = std::string(text), .address = std::move(*address)};
}

void append_row(std::string& text, std::string_view form, std::string_view what, size_t indent) {
  constexpr size_t column = 31;
  std::string row(indent, ' ');
  row += form;
  row += row.size() + 1 > column ? "\n" + std::string(column, ' ') : std::string(column - row.size(), ' ');
  text += row;
  text += what;
  text += '\n';
}

}  // namespace

unsigned DeviceUri::relays() const {
  if (const auto* emulated = std::get_if<EmulatedAddress>(&address)) return emulated->drive.relays;
  if (const auto* controller = std::get_if<ControllerAddress>(&address)) return controller->relays;
  return relay_v1::shipped_relays;
}

Result<DeviceUri> parse_device_uri(std::string_view text) {
  if (is_nvme_tcp(text)) return with(text, parse_nvme_tcp_address(text));
  if (is_controller(text)) return with(text, parse_controller_address(text));
  if (is_emulated(text)) return with(text, parse_emulated_address(text));
  return Error{EINVAL, "device " + quoted(text) + ": unknown kind of device; give " + forms()};
}

std::span<const KnownDevice> known_devices() {
  return devices;
}

std::string devices_help() {
  std::string text;
  for (const KnownDevice& device : devices) {
    append_row(text, device.form, device.what, 4);
    for (const KnownOption& option : device.options) append_row(text, option.form, option.what, 6);
  }
  return text;
}

}  // namespace nvsock
