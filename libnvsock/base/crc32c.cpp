#include "libnvsock/base/crc32c.hpp"

#include <isa-l/crc.h>

namespace nvsock {

uint32_t crc32c(std::span<const uint8_t> bytes) {
  // The library starts from, and returns, the register itself; it only reads the bytes.
  return ~crc32_iscsi(const_cast<uint8_t*>(bytes.data()), static_cast<int>(bytes.size()), ~0u);
}

}  // namespace nvsock
