// Names that nobody else has, and that nobody guesses: random bytes. Threads: any.
#pragma once

#include <sys/random.h>

#include <array>
#include <cstdint>
#include <cstdlib>

#include "libnvsock/base/bytes.hpp"

namespace nvsock {

inline std::array<uint8_t, 16> random_id() {
  std::array<uint8_t, 16> id;
  // Up to 256 bytes come whole or not at all, and not at all means a kernel without getrandom(2).
  if (getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size())) std::abort();
  return id;
}

// Not 0.
inline uint64_t random_handle() {
  uint64_t handle = 0;
  while (handle == 0) handle = load_le<uint64_t>(random_id().data());
  return handle;
}

}  // namespace nvsock
