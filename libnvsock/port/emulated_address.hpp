// The embedded software drive as a device URI names it:
//
//   emu:[?relays=N][&netns=NAME][&dialect=v1|v1-fixed|v2][&lease=S]
//       [&faults=SEED][&reset_every=SIZE][&restart_every=SIZE][&gone_every=SIZE]
//
// SIZE is a number of bytes, with K, M or G behind it for the powers of 1024.
//
// Threads: any; nothing is opened or looked up.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "csd/base/drive_options.hpp"
#include "libnvsock/base/result.hpp"
#include "libnvsock/base/uri.hpp"

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

inline constexpr unsigned max_emulated_streams = csd::max_streams;

struct EmulatedAddress {
  csd::DriveOptions drive;
  FaultOptions faults;
};

inline constexpr KnownOption emulated_options[] = {
    {"relays=N", "connections at most (16384; v1-fixed 64, v1 4)"},
    {"netns=NAME", "the network namespace that is its inside"},
    {"dialect=v1|v1-fixed|v2", "its generation; v1 with all its faults (v2)"},
    {"lease=S", "how long connections outlive silence (30)"},
    {"faults=SEED", "whatever connections survive goes wrong"},
    {"reset_every=SIZE", "the controller is reset each SIZE bytes"},
    {"restart_every=SIZE", "the drive loses its state"},
    {"gone_every=SIZE", "the drive is gone for a while"},
};

// Is it for parse_emulated_address() to say whether the URI is right?
bool is_emulated(std::string_view uri);
// EINVAL with a sentence that names the part that is wrong.
Result<EmulatedAddress> parse_emulated_address(std::string_view uri);

}  // namespace nvsock
