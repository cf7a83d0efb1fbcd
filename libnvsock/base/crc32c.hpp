// CRC32C (Castagnoli), as the digests of NVMe/TCP use it. Threads: any.
#pragma once

#include <cstdint>
#include <span>

namespace nvsock {

uint32_t crc32c(std::span<const uint8_t> bytes);  // REQUIRES: less than 2 GiB

}  // namespace nvsock
