// What a controller tells of itself: Identify data structures and log pages, as bytes.
//
// Source: NVMe Base Specification 2.0, figures 275, 280 and those named; what Linux demands of a Fabrics
// controller is in it. Every page is a buffer that the caller has filled with zeros.
// Threads: any.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace nvsock::csd {

inline constexpr uint32_t identify_size = 4096;

using Uuid = std::array<uint8_t, 16>;
// Of version 8 (RFC 9562), always the same for a text: it names what the text names.
Uuid uuid_of(std::string_view text);

struct ControllerIdentity {
  std::string_view nqn;  // of the subsystem
  uint16_t controller = 0;
  uint16_t max_entries = 0;
  bool discovery = false;
  bool write_cache = false;  // Flush means something
};
void write_identify_controller(const ControllerIdentity& identity, std::span<uint8_t> page);
void write_identify_namespace(uint64_t blocks, uint32_t block_size, const Uuid& id, std::span<uint8_t> page);
void write_namespace_descriptors(const Uuid& id, std::span<uint8_t> page);

inline constexpr uint32_t health_log_size = 512;
void write_health_log(std::span<uint8_t> page);

// Commands Supported and Effects (section 5.16.1.6): what a controller with a namespace executes, the relay
// protocol's opcodes among it.
inline constexpr uint32_t effects_log_size = 4096;
void write_effects_log(std::span<uint8_t> page);

// The Discovery log page (figure 264) with one subsystem at an IPv4 or IPv6 address; with another address, or
// `listed` false, with none. `tls`: it requires TLS 1.3.
inline constexpr uint32_t discovery_log_size = 2048;
void write_discovery_log(std::string_view nqn, const sockaddr_storage& address, bool listed, bool tls,
                         std::span<uint8_t> page);

}  // namespace nvsock::csd
