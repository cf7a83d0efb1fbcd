// Device URIs: which drive, by which way. Each way has a parser of its own, in libnvsock/port/.
//
//   /dev/nvmeN...                          controller_address.hpp
//   nvme-tcp://..., unix:..., vsock:...    nvme_tcp_address.hpp
//   emu:...                                emulated_address.hpp
//
// Threads: any; nothing is opened or looked up.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "libnvsock/base/result.hpp"
#include "libnvsock/port/controller_address.hpp"
#include "libnvsock/port/emulated_address.hpp"
#include "libnvsock/port/nvme_tcp_address.hpp"

namespace nvsock {

struct DeviceUri {
  std::string text;  // as given
  std::variant<EmulatedAddress, ControllerAddress, NvmeTcpAddress> address;

  // How many relays a drive of the first generation is said to have.
  unsigned relays() const;
};

// EINVAL with a sentence that names the part that is wrong.
Result<DeviceUri> parse_device_uri(std::string_view text);

// What may be given for a device: messages and --help are made of this, and a test holds the manual page
// against it.
struct KnownDevice {
  std::string_view form;  // "/dev/nvmeN"
  std::string_view what;
  std::span<const KnownOption> options;
};
std::span<const KnownDevice> known_devices();
// The same for --help: lines of at most 80 columns, indented.
std::string devices_help();

}  // namespace nvsock
