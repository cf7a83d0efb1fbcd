// First-generation relay commands, byte for byte as shipped; shared by the host and the emulated drive.
//
// Admin opcode C0h, nsid 0, CDW10 the function, always a 4096-byte buffer that the drive reads and writes.
// Threads: any.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "libnvsock/base/buffer.hpp"
#include "libnvsock/base/bytes.hpp"
#include "libnvsock/nvme/command.hpp"

namespace nvsock::relay_v1 {

inline constexpr uint32_t buffer_size = 4096;
static_assert(buffer_size == page_size);

namespace function {                     // CDW10
inline constexpr uint32_t identify = 0;  // CDW11 0: is it a CSD
inline constexpr uint32_t comm = 64;     // CDW11 direction, CDW12 bytes (write), CDW13 descriptor
inline constexpr uint32_t open = 128;    // buffer: node, service; answered in the same buffer
inline constexpr uint32_t close = 129;   // CDW13 descriptor
}  // namespace function

inline constexpr uint32_t comm_read = 0;   // CDW11
inline constexpr uint32_t comm_write = 1;  // CDW11

inline constexpr std::string_view identify_text = "This device has compute";
inline constexpr uint32_t max_write = buffer_size;
inline constexpr uint32_t read_header = 4;  // u32 little endian: bytes that follow, 0 = end of stream
inline constexpr uint32_t max_read = buffer_size - read_header;
inline constexpr size_t node_size = 256;  // NUL-terminated text
inline constexpr size_t service_size = 256;

// Relays and reads per relay of the firmware as shipped.
inline constexpr unsigned shipped_relays = 4;
inline constexpr unsigned max_queued_reads = 1024;

inline uint32_t load_u32(const void* from) {
  return load_le<uint32_t>(static_cast<const uint8_t*>(from));
}
inline void store_u32(void* to, uint32_t value) {
  store_le(static_cast<uint8_t*>(to), value);
}

// Writes node and service for `open`. REQUIRES: each shorter than its field, `buffer` of buffer_size.
inline void encode_open(void* buffer, std::string_view node, std::string_view service) {
  auto* bytes = static_cast<char*>(buffer);
  std::memset(bytes, 0, node_size + service_size);
  std::copy(node.begin(), node.end(), bytes);
  std::copy(service.begin(), service.end(), bytes + node_size);
}

inline std::string_view field_text(const char* field, size_t size) {
  return nvsock::field_text({reinterpret_cast<const uint8_t*>(field), size});
}

}  // namespace nvsock::relay_v1
