// Entries of NVMe queues as NVMe over Fabrics carries them, and the Fabrics commands: bytes, no I/O.
//
// Sections and figures are those of the NVMe Base Specification 2.0. Both ends share this file. A Fabrics
// command is a Command like any other: FCTYPE takes the place of NSID, and its fields those of CDW10 on.
// Parsers allocate nothing. Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "libnvsock/base/bytes.hpp"
#include "libnvsock/nvme/command.hpp"

namespace nvsock::nvme {

inline constexpr size_t submission_size = 64;
inline constexpr size_t completion_size = 16;

// Where the data of a command is: figure 94 and on, of which NVMe/TCP uses two.
struct DataPointer {
  enum class Kind : uint8_t {
    in_capsule = 0x01,  // behind the submission entry, `offset` bytes from its end
    transport = 0x5A,   // moved by the transport; with length 0: no data
  };
  Kind kind = Kind::transport;
  uint64_t offset = 0;
  uint32_t length = 0;
};

// Section 3.3.3.1: what a submission entry says beyond the Command.
struct Submission {
  uint16_t cid = 0;
  bool fused = false;
  // Nothing: a kind of descriptor that NVMe/TCP does not use.
  std::optional<DataPointer> data = DataPointer{};
};
void encode(const Command& command, uint16_t cid, const DataPointer& data,
            std::span<uint8_t, submission_size> out);
// Fills opcode, NSID and CDW10 to CDW15 of the command.
Submission parse_submission(std::span<const uint8_t, submission_size> entry, Command& command);

// Section 3.3.3.2. `status` as in nvsock::status, without flags; the queue numbers mean nothing over TCP
// but the head pointer.
struct CompletionEntry {
  uint64_t result = 0;  // DW0 in the low half
  uint16_t sq_head = 0;
  uint16_t cid = 0;
  uint16_t status = 0;
  bool do_not_retry = false;
};
void encode(const CompletionEntry& completion, std::span<uint8_t, completion_size> out);
CompletionEntry parse_completion(std::span<const uint8_t, completion_size> entry);

namespace opcode {  // section 5, and 7 for NVM
inline constexpr uint8_t get_log_page = 0x02;
inline constexpr uint8_t identify = 0x06;
inline constexpr uint8_t abort = 0x08;
inline constexpr uint8_t set_features = 0x09;
inline constexpr uint8_t get_features = 0x0A;
inline constexpr uint8_t async_event_request = 0x0C;
inline constexpr uint8_t keep_alive = 0x18;
inline constexpr uint8_t fabrics = 0x7F;
inline constexpr uint8_t flush = 0x00;
inline constexpr uint8_t write = 0x01;
inline constexpr uint8_t read = 0x02;
}  // namespace opcode

// Which way the data of a command goes, if there is any: the two low bits of the opcode (section 3.1.3), and
// of Fabrics commands only that of Connect (section 6).
enum class Direction : uint8_t { none = 0, to_controller = 1, to_host = 2, both = 3 };
Direction direction_of(const Command& command);

namespace fabrics_type {  // section 6: FCTYPE, the NSID field
inline constexpr uint32_t property_set = 0x00;
inline constexpr uint32_t connect = 0x01;
inline constexpr uint32_t property_get = 0x04;
inline constexpr uint32_t disconnect = 0x08;
}  // namespace fabrics_type

namespace status {  // beyond nvsock::status
inline constexpr uint16_t invalid_namespace = 0x00B;
inline constexpr uint16_t sequence_error = 0x00C;
inline constexpr uint16_t invalid_sgl_length = 0x00F;
inline constexpr uint16_t invalid_sgl_type = 0x011;
inline constexpr uint16_t invalid_sgl_offset = 0x016;
inline constexpr uint16_t transient_transport_error = 0x022;
inline constexpr uint16_t lba_out_of_range = 0x080;
inline constexpr uint16_t write_fault = 0x280;
inline constexpr uint16_t async_event_limit_exceeded = 0x105;
inline constexpr uint16_t invalid_log_page = 0x109;
inline constexpr uint16_t feature_not_changeable = 0x10E;
inline constexpr uint16_t connect_incompatible_format = 0x180;
inline constexpr uint16_t connect_controller_busy = 0x181;
inline constexpr uint16_t connect_invalid_parameters = 0x182;
inline constexpr uint16_t connect_invalid_host = 0x184;
}  // namespace status

// Section 6.3, Connect: fields of the command, and the 1024 bytes of its data.
struct Connect {
  uint16_t record_format = 0;
  uint16_t queue = 0;
  uint16_t queue_size = 0;     // entries, not 0's based
  uint32_t keep_alive_ms = 0;  // admin queue; 0: no keep-alive
};
void encode(const Connect& connect, Command& command);
Connect parse_connect(const Command& command);

inline constexpr size_t connect_data_size = 1024;
inline constexpr size_t nqn_size = 256;  // with the zero that ends it
inline constexpr size_t max_nqn = 223;   // bytes, section 4.5
inline constexpr uint16_t any_controller = 0xFFFF;
struct ConnectData {
  std::array<uint8_t, 16> host_id{};
  uint16_t controller = any_controller;
  std::string_view subsystem;  // NQNs: 1 to max_nqn bytes; parsed ones point into the data
  std::string_view host;
};
// Byte offsets of fields, for the result of a Connect that failed with connect_invalid_parameters.
namespace connect_offset {
inline constexpr uint16_t queue = 42, queue_size = 44;                                // in the command
inline constexpr uint16_t host_id = 0, controller = 16, subsystem = 256, host = 512;  // in the data
}  // namespace connect_offset
void encode(const ConnectData& data, std::span<uint8_t, connect_data_size> out);
// An NQN that is too long, or not ended, comes back empty.
ConnectData parse_connect_data(std::span<const uint8_t, connect_data_size> data);

// Section 3.1.4: properties, by offset, with Property Get and Set (6.5, 6.6).
namespace property {
inline constexpr uint32_t cap = 0x00;  // 8 bytes
inline constexpr uint32_t vs = 0x08;   // 4 bytes, as the rest
inline constexpr uint32_t cc = 0x14;
inline constexpr uint32_t csts = 0x1C;
}  // namespace property
struct Property {
  bool wide = false;  // 8 bytes, not 4
  uint32_t offset = 0;
  uint64_t value = 0;  // to set
};
void encode_property_get(const Property& property, Command& command);
void encode_property_set(const Property& property, Command& command);
// Nothing: a size that does not exist.
std::optional<Property> parse_property(const Command& command);

namespace cc {  // Controller Configuration
inline constexpr uint32_t enable = 1;
inline constexpr uint32_t shutdown_mask = 3u << 14;
inline constexpr uint32_t shutdown_normal = 1u << 14;
// Entries of 64 and 16 bytes, as every I/O queue has them.
inline constexpr uint32_t entry_sizes = 6u << 16 | 4u << 20;
}  // namespace cc
namespace csts {  // Controller Status
inline constexpr uint32_t ready = 1;
inline constexpr uint32_t fatal = 2;
inline constexpr uint32_t shutdown_complete = 2u << 2;
}  // namespace csts

inline constexpr uint32_t version = 0x00010400;  // of the specification that our controllers follow: 1.4
inline constexpr std::string_view discovery_nqn = "nqn.2014-08.org.nvmexpress.discovery";

}  // namespace nvsock::nvme
