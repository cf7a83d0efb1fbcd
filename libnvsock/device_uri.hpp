// Device URIs: which drive, by which way.
//
//   /dev/nvmeN[?relays=N][&passthrough=auto|io_uring|ioctl]
//   nvme-tcp://..., unix:..., vsock:... (libnvsock/port/nvme_tcp_address.hpp)
//   emu:[?relays=N][&netns=NAME][&dialect=v1|v1-fixed|v2][&lease=S]
//       [&faults=SEED][&reset_every=SIZE][&restart_every=SIZE][&gone_every=SIZE]
//
// SIZE is a number of bytes, with K, M or G behind it for the powers of 1024.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "libnvsock/base/result.hpp"
#include "libnvsock/port/nvme_tcp_address.hpp"

namespace nvsock {

// What is to go wrong on purpose between the host and the embedded drive (libnvsock/port/fault_port.hpp).
// Bytes are those of batches that the host got across, both ways together; 0: never.
struct FaultOptions {
  std::optional<uint64_t> seed;  // faults of all kinds that connections survive
  uint64_t reset_every = 0;      // the controller is reset
  uint64_t restart_every = 0;    // the drive loses its state
  uint64_t gone_every = 0;       // the drive is gone, for six times the lease

  bool any() const { return seed || reset_every > 0 || restart_every > 0 || gone_every > 0; }
};

// What the embedded drive's firmware is like; see csd/drive.hpp.
enum class Firmware {
  shipped,  // dialect=v1: the first generation as in the field, its faults included
  fixed,    // dialect=v1-fixed: the first generation without them
  second,   // dialect=v2: the second generation (docs/relay-protocol.md), and the first as `fixed`
};

// The embedded software drive.
struct EmulatedDriveOptions {
  unsigned relays = 64;  // of the first generation, 1..max_relays
  std::string netns;     // network namespace (as in ip-netns(8)) its sockets live in; empty: the process's
  Firmware firmware = Firmware::second;
  // The second generation's only:
  unsigned streams = 16384;        // 1..max_streams
  std::chrono::seconds lease{30};  // how long a session lives that the host does not name, 1..3600
  FaultOptions faults{};
};

// How commands reach the kernel's NVMe driver.
enum class Passthrough {
  automatic,  // passthrough=auto: by io_uring where the kernel has it, else by ioctl
  io_uring,
  ioctl,
};

struct DeviceUri {
  enum class Kind { controller, emulated, nvme_tcp };

  // More than any firmware has and than one event loop's descriptors allow by default.
  static constexpr unsigned max_relays = 512;
  static constexpr unsigned max_streams = 16384;
  static constexpr unsigned max_lease = 3600;

  Kind kind = Kind::emulated;
  std::string text;                                  // as given
  std::string controller;                            // "nvme1", kind controller
  Passthrough passthrough = Passthrough::automatic;  // kind controller
  unsigned relays = 4;  // how many a drive of the first generation is said to have
  EmulatedDriveOptions emulated;
  NvmeTcpTarget target;  // kind nvme_tcp
};

// EINVAL with a sentence that names the part that is wrong.
Result<DeviceUri> parse_device_uri(std::string_view text);

}  // namespace nvsock
