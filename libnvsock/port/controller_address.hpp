// A controller of this host as a device URI names it: /dev/nvmeN[?relays=N][&passthrough=auto|io_uring|ioctl]
//
// Threads: any; nothing is opened or looked up.
#pragma once

#include <string>
#include <string_view>

#include "libnvsock/base/result.hpp"
#include "libnvsock/base/uri.hpp"

namespace nvsock {

// How commands reach the kernel's NVMe driver.
enum class Passthrough {
  automatic,  // passthrough=auto: by io_uring where the kernel has it, else by ioctl
  io_uring,
  ioctl,
};

struct ControllerAddress {
  std::string name;     // "nvme1"
  unsigned relays = 0;  // how many a drive of the first generation is said to have, 1..csd::max_relays
  Passthrough passthrough = Passthrough::automatic;
};

inline constexpr KnownOption controller_options[] = {
    {"relays=N", "how many relays its firmware has (4)"},
    {"passthrough=auto|io_uring|ioctl", "which way commands take (auto)"},
};

// Is it for parse_controller_address() to say whether the URI is right?
bool is_controller(std::string_view uri);
// EINVAL with a sentence that names the part that is wrong.
Result<ControllerAddress> parse_controller_address(std::string_view uri);

}  // namespace nvsock
