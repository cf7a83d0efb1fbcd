// What the software drive is like. Threads: any.
#pragma once

#include <chrono>
#include <string>

namespace nvsock::csd {

// What its firmware speaks.
enum class Firmware {
  shipped,  // the first generation as in the field, its faults included
  fixed,    // the first generation without them
  second,   // the second generation (docs/relay-protocol.md), and the first as `fixed`
};

// More than any firmware has and than one event loop's descriptors allow by default.
inline constexpr unsigned max_relays = 512;
inline constexpr unsigned max_streams = 16384;
inline constexpr unsigned max_lease = 3600;  // seconds

struct DriveOptions {
  unsigned relays = 64;  // of the first generation, 1..max_relays
  std::string netns;     // network namespace (as in ip-netns(8)) its sockets live in; empty: the process's
  Firmware firmware = Firmware::second;
  // The second generation's only:
  unsigned streams = max_streams;  // 1..max_streams
  std::chrono::seconds lease{30};  // how long a session lives that the host does not name, 1..max_lease
};

}  // namespace nvsock::csd
