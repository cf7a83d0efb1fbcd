// Who a host is, as far as a drive can tell: over Fabrics by the names that each of its queues repeats. A
// drive that only one host can reach calls it nothing. Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace nvsock::csd {

struct HostName {
  std::array<uint8_t, 16> id{};
  std::string nqn;
  bool operator==(const HostName&) const = default;
};

}  // namespace nvsock::csd
