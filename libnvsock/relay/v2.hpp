// Second-generation relay protocol: the bytes, and nothing but the bytes. Both ends share this file.
//
// docs/relay-protocol.md is the text; section numbers below are its. Parsers take bytes from outside: they
// check everything before they return anything, and allocate nothing. Spans they return point into the
// bytes they were given. Threads: any.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "libnvsock/base/bytes.hpp"
#include "libnvsock/base/socket_type.hpp"
#include "libnvsock/nvme/command.hpp"

namespace nvsock::relay_v2 {

inline constexpr uint16_t version = 3;

// --- section 2 ---

// The opcode is the direction of the data.
namespace opcode {
inline constexpr uint8_t no_data = 0xC0;
inline constexpr uint8_t to_drive = 0xC1;
inline constexpr uint8_t to_host = 0xC2;
}  // namespace opcode
namespace function {
inline constexpr uint8_t capabilities = 1;
inline constexpr uint8_t attach = 2;
inline constexpr uint8_t detach = 3;
inline constexpr uint8_t tx = 4;
inline constexpr uint8_t rx = 5;
}  // namespace function

inline constexpr uint32_t max_distance = 255;

// What a command says beside its data.
struct Call {
  uint8_t function = 0;
  uint64_t handle = 0;    // of the session; capabilities and attach: 0
  uint32_t sequence = 0;  // tx and rx: its low half
  uint32_t wait_ms = 0;   // rx: at most max_wait_ms
  uint32_t distance = 0;  // rx: at most max_distance; the host has every batch before (sequence - distance)
};
// Sets the opcode and CDW10 to 15. REQUIRES: the command's data_length is set, and a multiple of 4.
void encode(const Call& call, Command& command);
Call parse_call(const Command& command);
constexpr uint8_t function_of(const Command& command) {
  return command.cdw12 & 0xff;
}
// Is it a command of the second generation? Of opcode C0h, which the first has as well, detach alone is, and
// has no data.
bool is_call(const Command& command);
// NDT, in bytes.
constexpr uint64_t told_length(const Command& command) {
  return uint64_t{command.cdw10} * 4;
}

// The number nearest to `own` whose low half is `low`. Windows are far below 2^31: none else can be meant.
constexpr uint64_t nearest_sequence(uint32_t low, uint64_t own) {
  const int64_t distance = static_cast<int32_t>(low - static_cast<uint32_t>(own));
  const uint64_t nearest = own + static_cast<uint64_t>(distance);
  return distance < 0 && nearest > own ? nearest + (uint64_t{1} << 32) : nearest;  // there is none below 0
}

// Section 10: what the model number of a drive starts with that is of the second generation alone.
inline constexpr std::string_view model = "nvsock csd";

// Section 8.
inline constexpr uint32_t max_batch = 128 * 1024;
inline constexpr uint32_t min_batch = 4096;
inline constexpr uint32_t max_wait_ms = 10'000;
inline constexpr uint32_t max_datagram = 65507;
inline constexpr uint32_t max_node = 253;
inline constexpr uint32_t max_window = 0x7fffffff;
inline constexpr uint32_t datagram_cost = 16;  // credit beyond the payload, so that empty ones count

using Epoch = std::array<uint8_t, 16>;
using Secret = std::array<uint8_t, 16>;

// What a host chooses at random for each session: a name, which its commands carry, and what proves that an
// attach is of who made the session, which nothing else carries.
struct SessionKey {
  uint64_t handle = 1;  // not 0
  Secret secret{};
};
// Takes as long wherever they differ.
bool equal_secrets(const Secret& a, const Secret& b);

// --- section 3 ---

inline constexpr size_t capability_page_size = 4096;
inline constexpr size_t capability_bytes = 128;

// Those above `listeners` are named for what comes (section 3), and not offered.
namespace feature {
inline constexpr uint32_t datagrams = 1, ipv6 = 2, names = 4, listeners = 8;
inline constexpr uint32_t all = datagrams | ipv6 | names | listeners;  // that this version knows
}  // namespace feature

struct Capabilities {
  uint16_t lowest_version = version;
  uint16_t highest_version = version;
  uint32_t features = 0;
  uint32_t max_streams = 1;
  uint32_t max_batch = relay_v2::max_batch;
  uint32_t max_wait_ms = relay_v2::max_wait_ms;
  uint16_t tx_window = 1;
  uint16_t rx_window = 1;  // at most max_distance
  uint32_t lease_s = 30;
  Epoch epoch{};
  std::string_view vendor;  // at most 71 bytes
};

// Writes a whole capability page. REQUIRES: page of capability_page_size bytes.
void encode(const Capabilities& capabilities, std::span<uint8_t> page);
// Nothing: no page of this protocol (a first-generation drive answers zeros), or a field out of its range.
std::optional<Capabilities> parse_capabilities(std::span<const uint8_t> page);

inline constexpr size_t session_request_size = 64;

struct SessionRequest {
  bool resume = false;
  uint16_t version = relay_v2::version;
  uint32_t features = 0;  // the host wants
  Epoch epoch{};
  SessionKey key;
};

void encode(const SessionRequest& request, std::span<uint8_t> out);  // REQUIRES: session_request_size bytes
// Nothing: not of this protocol, or without a handle.
std::optional<SessionRequest> parse_session_request(std::span<const uint8_t> bytes);

// --- section 4 ---

inline constexpr size_t batch_header_size = 24;
inline constexpr size_t frame_header_size = 16;

enum class FrameType : uint8_t {
  open = 1,
  opened = 2,
  data = 3,
  datagram = 4,
  window = 5,
  fin = 6,
  reset = 7,
  listen = 8,
  listening = 9,
  accepted = 10,
  stat = 11,
};

struct Frame {
  FrameType type{};
  uint32_t stream = 0;
  uint32_t value = 0;
  std::span<const uint8_t> payload;
};

constexpr size_t padded(size_t size) {
  return (size + 7) & ~size_t{7};
}
constexpr size_t frame_size(size_t payload) {
  return frame_header_size + padded(payload);
}

// Builds one batch in a buffer of the caller's. Nothing is complete before finish().
class BatchWriter {
 public:
  // REQUIRES: at least batch_header_size bytes.
  explicit BatchWriter(std::span<uint8_t> buffer) : buffer_(buffer) {}

  bool empty() const { return frames_ == 0; }
  // Payload bytes a further frame may have; 0 also when not even a frame without payload fits (see fits()).
  size_t room() const {
    const size_t left = buffer_.size() - size_;
    return left < frame_header_size ? 0 : (left - frame_header_size) & ~size_t{7};
  }
  bool fits(size_t payload) const { return buffer_.size() - size_ >= frame_size(payload); }

  // Starts a frame and returns where its payload goes: to be filled before the next call. REQUIRES: fits.
  std::span<uint8_t> append(FrameType type, uint32_t stream, uint32_t value, size_t payload);
  void append(const Frame& frame);

  // Makes the last frame's payload shorter, to what was really there. REQUIRES: it was appended last.
  void shorten_last(size_t payload);

  // Writes the header and returns the batch's length. `taken`: the sequence of the last batch of the other
  // direction that took effect. REQUIRES: not empty.
  uint32_t finish(uint64_t sequence, uint64_t taken);

 private:
  std::span<uint8_t> buffer_;
  size_t size_ = batch_header_size;
  size_t last_ = 0;  // where the last frame starts
  uint32_t frames_ = 0;
};

// A batch that was checked as a whole: each frame is well-formed and of a kind the side may send.
class Batch {
 public:
  enum class From { host, drive };

  // Nothing: the bytes break a rule of section 4, and none of them may take effect.
  static std::optional<Batch> parse(std::span<const uint8_t> bytes, uint64_t sequence, From from);

  // Of the last batch of the other direction that had taken effect when this one was made: the sequence's low
  // half. Whether that can be is for who knows what it has sent.
  uint32_t taken() const { return taken_; }
  // The next frame, or nothing at the end.
  std::optional<Frame> next();

 private:
  Batch(std::span<const uint8_t> frames, uint32_t taken) : rest_(frames), taken_(taken) {}
  std::span<const uint8_t> rest_;
  uint32_t taken_;
};

// --- payloads ---

enum class Family : uint8_t { any = 0, ipv4 = 4, ipv6 = 6 };

struct Target {
  SocketType type = SocketType::stream;
  Family family = Family::any;
  uint16_t port = 0;
  std::string_view node;  // 1..max_node bytes, none of them zero
};
inline constexpr size_t target_header_size = 8;
constexpr size_t encoded_size(const Target& target) {
  return target_header_size + target.node.size();
}
void encode(const Target& target, std::span<uint8_t> out);
std::optional<Target> parse_target(std::span<const uint8_t> payload);

// An address as a sockaddr_in or sockaddr_in6; family AF_UNSPEC: not known.
inline constexpr size_t address_size = 24;
void encode(const sockaddr_storage& address, std::span<uint8_t> out);
sockaddr_storage parse_address(std::span<const uint8_t> bytes);  // REQUIRES: address_size bytes

struct Opened {
  sockaddr_storage local{};
  sockaddr_storage peer{};
};
inline constexpr size_t opened_size = 2 * address_size;
void encode(const Opened& opened, std::span<uint8_t> out);
Opened parse_opened(std::span<const uint8_t> payload);  // REQUIRES: opened_size bytes, as Batch has checked

struct Accepted {
  uint32_t listener = 0;
  Opened addresses;
};
inline constexpr size_t accepted_size = 8 + opened_size;
void encode(const Accepted& accepted, std::span<uint8_t> out);
Accepted parse_accepted(std::span<const uint8_t> payload);  // REQUIRES: accepted_size bytes

struct Counters {
  uint64_t streams_now = 0;
  uint64_t streams_opened = 0;
  uint64_t opens_refused = 0;
  uint64_t bytes_to_services = 0;
  uint64_t bytes_from_services = 0;
  uint64_t datagrams_dropped = 0;
  uint64_t batches_repeated = 0;
  uint64_t age_ms = 0;
  uint64_t lingering_bytes = 0;    // of closed streams, that services have not taken
  uint64_t lingering_streams = 0;  // that hold them
  uint64_t lingering_lost = 0;     // bytes of them that no service ever took
  uint64_t memory = 0;             // bytes that the session holds in the drive
};
inline constexpr size_t counters_size = 96;
inline constexpr size_t least_counters_size = 64;  // up to and with age_ms
void encode(const Counters& counters, std::span<uint8_t> out);
// Counters that are missing are 0; those that this version does not know are left out. REQUIRES:
// least_counters_size bytes, as Batch has checked.
Counters parse_counters(std::span<const uint8_t> payload);

}  // namespace nvsock::relay_v2
