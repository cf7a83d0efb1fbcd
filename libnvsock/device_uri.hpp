// Device URIs: which drive, by which way.
//
//   /dev/nvmeN[?relays=N]
//   emu:[?relays=N][&netns=NAME][&dialect=v1|v2]
//   nvme-tcp://..., unix:..., vsock:... (libnvsock/nvme_tcp_target.hpp)
#pragma once

#include <string>
#include <string_view>

#include "libnvsock/nvme_tcp_target.hpp"
#include "libnvsock/result.hpp"

namespace nvsock {

// The embedded software drive. See csd/drive.hpp for what the faults are.
struct EmulatedDriveOptions {
  unsigned relays = 64;  // 1..max_relays
  std::string netns;     // network namespace (as in ip-netns(8)) its sockets live in; empty: the process's
  bool shipped = false;  // behave as the firmware in the field, faults included
  bool second_generation = false;  // speak the second generation as well (docs/relay-protocol.md)
};

struct DeviceUri {
  enum class Kind { controller, emulated, nvme_tcp };

  // More than any firmware has and than one event loop's descriptors allow by default.
  static constexpr unsigned max_relays = 512;

  Kind kind = Kind::emulated;
  std::string text;        // as given
  std::string controller;  // "nvme1", kind controller
  unsigned relays = 4;     // how many the drive is said to have
  EmulatedDriveOptions emulated;
  NvmeTcpTarget target;  // kind nvme_tcp
};

// EINVAL with a sentence that names the part that is wrong.
Result<DeviceUri> parse_device_uri(std::string_view text);

}  // namespace nvsock
