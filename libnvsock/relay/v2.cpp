#include "libnvsock/relay/v2.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <cassert>
#include <cstring>

namespace nvsock::relay_v2 {
namespace {

constexpr std::array<uint8_t, 8> page_magic{'N', 'V', 'S', 'O', 'C', 'K', '2', 0};
constexpr std::array<uint8_t, 4> batch_magic{'N', 'V', 'B', '2'};
constexpr size_t vendor_offset = 56;
constexpr size_t vendor_size = 72;
constexpr uint16_t resume_flag = 1;

bool equal(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  return std::ranges::equal(a, b);
}

template <size_t Size>
std::array<uint8_t, Size> array_of(std::span<const uint8_t> bytes) {
  std::array<uint8_t, Size> out{};
  std::ranges::copy(bytes.first(std::min(Size, bytes.size())), out.begin());
  return out;
}

// Who may send a frame, what its value may be and how long its payload is.
struct FrameRule {
  bool from_host;
  bool from_drive;
  uint32_t least_value;
  uint32_t most_value;
  size_t least_payload;
  size_t most_payload;
};

std::optional<FrameRule> rule_of(FrameType type) {
  constexpr uint32_t any = UINT32_MAX;
  constexpr uint32_t most_errno = 4095;  // Linux: MAX_ERRNO
  switch (type) {
    case FrameType::open:
      return FrameRule{true, false, 0, max_window, target_header_size + 1, target_header_size + max_node};
    case FrameType::opened:
      return FrameRule{false, true, 0, max_window, opened_size, opened_size};
    case FrameType::data:
      return FrameRule{true, true, 0, any, 1, max_batch};
    case FrameType::datagram:
      return FrameRule{true, true, 0, any, 0, max_datagram};
    case FrameType::window:
      return FrameRule{true, true, 1, max_window, 0, 0};
    case FrameType::fin:
      return FrameRule{true, true, 0, any, 0, 0};
    case FrameType::reset:
      return FrameRule{true, true, 0, most_errno, 0, 0};
    case FrameType::listen:
      return FrameRule{true, false, 1, 128, target_header_size + 1, target_header_size + max_node};
    case FrameType::listening:
      return FrameRule{false, true, 0, any, address_size, address_size};
    case FrameType::accepted:
      return FrameRule{false, true, 0, max_window, accepted_size, accepted_size};
    case FrameType::stat:
      return FrameRule{true, true, 0, any, 0, max_batch};
  }
  return std::nullopt;
}

// A STAT asks without counters and answers with whole ones, 8 at least.
bool stat_fits(const Frame& frame, Batch::From from) {
  if (frame.type != FrameType::stat) return true;
  const size_t size = frame.payload.size();
  return from == Batch::From::host ? size == 0 : size >= least_counters_size && size % 8 == 0;
}

// A target is checked with the batch, so that nobody applies half of one.
bool target_fits(const Frame& frame) {
  return (frame.type != FrameType::open && frame.type != FrameType::listen) || parse_target(frame.payload);
}

bool allowed(const Frame& frame, Batch::From from) {
  const std::optional<FrameRule> rule = rule_of(frame.type);
  return rule && (from == Batch::From::host ? rule->from_host : rule->from_drive) &&
         (frame.stream == 0) == (frame.type == FrameType::stat) && frame.value >= rule->least_value &&
         frame.value <= rule->most_value && frame.payload.size() >= rule->least_payload &&
         frame.payload.size() <= rule->most_payload && stat_fits(frame, from) && target_fits(frame);
}

// Takes one frame off the front; false if the bytes end within it.
bool take_frame(std::span<const uint8_t>& rest, Frame& frame) {
  ByteReader reader(rest);
  frame.type = static_cast<FrameType>(reader.number<uint8_t>());
  reader.skip(3);
  frame.stream = reader.number<uint32_t>();
  const auto length = reader.number<uint32_t>();
  frame.value = reader.number<uint32_t>();
  frame.payload = reader.bytes(length);
  reader.skip(padded(length) - length);
  if (!reader.ok()) return false;
  rest = rest.last(reader.left());
  return true;
}

constexpr uint8_t opcode_of(uint8_t called) {
  if (called == function::detach) return opcode::no_data;
  return called == function::attach || called == function::tx ? opcode::to_drive : opcode::to_host;
}

}  // namespace

// --- section 2 ---

void encode(const Call& call, Command& command) {
  assert(command.data_length % 4 == 0 && call.distance <= max_distance && call.wait_ms <= max_wait_ms);
  command.opcode = opcode_of(call.function);
  command.cdw10 = command.data_length / 4;
  command.cdw11 = 0;
  command.cdw12 = call.function | call.distance << 8 | call.wait_ms << 16;
  command.cdw13 = call.sequence;
  command.cdw14 = static_cast<uint32_t>(call.handle);
  command.cdw15 = static_cast<uint32_t>(call.handle >> 32);
}

Call parse_call(const Command& command) {
  return {.function = function_of(command),
          .handle = command.cdw14 | uint64_t{command.cdw15} << 32,
          .sequence = command.cdw13,
          .wait_ms = command.cdw12 >> 16 & 0x3fff,
          .distance = command.cdw12 >> 8 & 0xff};
}

bool is_call(const Command& command) {
  const uint8_t called = function_of(command);
  return called >= function::capabilities && called <= function::rx && command.opcode == opcode_of(called) &&
         (called != function::detach || command.cdw10 == 0);
}

// --- section 3 ---

bool equal_secrets(const Secret& a, const Secret& b) {
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
  return difference == 0;
}

void encode(const Capabilities& from, std::span<uint8_t> page) {
  assert(page.size() >= capability_page_size && from.vendor.size() < vendor_size);
  std::fill(page.begin(), page.end(), uint8_t{0});
  uint8_t* const at = page.data();
  std::ranges::copy(page_magic, at);
  store_le(at + 8, from.lowest_version);
  store_le(at + 10, from.highest_version);
  store_le(at + 12, from.features);
  store_le(at + 16, from.max_streams);
  store_le(at + 20, from.max_batch);
  store_le(at + 24, from.max_wait_ms);
  store_le(at + 28, from.tx_window);
  store_le(at + 30, from.rx_window);
  store_le(at + 32, from.lease_s);
  std::ranges::copy(from.epoch, at + 40);
  std::ranges::copy(from.vendor, at + vendor_offset);
}

std::optional<Capabilities> parse_capabilities(std::span<const uint8_t> page) {
  ByteReader reader(page);
  if (!equal(reader.bytes(page_magic.size()), page_magic)) return std::nullopt;
  Capabilities to;
  to.lowest_version = reader.number<uint16_t>();
  to.highest_version = reader.number<uint16_t>();
  to.features = reader.number<uint32_t>();
  to.max_streams = reader.number<uint32_t>();
  to.max_batch = reader.number<uint32_t>();
  to.max_wait_ms = reader.number<uint32_t>();
  to.tx_window = reader.number<uint16_t>();
  to.rx_window = reader.number<uint16_t>();
  to.lease_s = reader.number<uint32_t>();
  reader.skip(4);
  to.epoch = array_of<16>(reader.bytes(16));
  const auto vendor = reader.bytes(vendor_size);
  if (!reader.ok()) return std::nullopt;
  const auto end = std::ranges::find(vendor, uint8_t{0});
  to.vendor = {reinterpret_cast<const char*>(vendor.data()), static_cast<size_t>(end - vendor.begin())};
  const bool in_range = to.lowest_version <= to.highest_version && to.max_streams > 0 &&
                        to.max_batch >= min_batch && to.max_batch <= max_batch && to.max_batch % 8 == 0 &&
                        to.max_wait_ms > 0 && to.max_wait_ms <= max_wait_ms && to.tx_window > 0 &&
                        to.rx_window > 0 && to.rx_window <= max_distance && to.lease_s > 0;
  return in_range ? std::optional(to) : std::nullopt;
}

void encode(const SessionRequest& from, std::span<uint8_t> out) {
  assert(out.size() >= session_request_size);
  std::ranges::fill(out.first(session_request_size), uint8_t{0});
  std::ranges::copy(page_magic, out.data());
  store_le(out.data() + 8, from.version);
  store_le(out.data() + 10, from.resume ? resume_flag : uint16_t{0});
  store_le(out.data() + 12, from.features);
  std::ranges::copy(from.key.secret, out.data() + 16);
  std::ranges::copy(from.epoch, out.data() + 32);
  store_le(out.data() + 48, from.key.handle);
}

std::optional<SessionRequest> parse_session_request(std::span<const uint8_t> bytes) {
  ByteReader reader(bytes);
  if (!equal(reader.bytes(page_magic.size()), page_magic)) return std::nullopt;
  SessionRequest to;
  to.version = reader.number<uint16_t>();
  to.resume = (reader.number<uint16_t>() & resume_flag) != 0;
  to.features = reader.number<uint32_t>();
  to.key.secret = array_of<16>(reader.bytes(16));
  to.epoch = array_of<16>(reader.bytes(16));
  to.key.handle = reader.number<uint64_t>();
  reader.skip(8);
  return reader.ok() && to.key.handle != 0 ? std::optional(to) : std::nullopt;
}

// --- section 4 ---

std::span<uint8_t> BatchWriter::append(FrameType type, uint32_t stream, uint32_t value, size_t payload) {
  assert(fits(payload));
  uint8_t* const at = buffer_.data() + size_;
  last_ = size_;
  store_le(at, uint32_t{static_cast<uint8_t>(type)});
  store_le(at + 4, stream);
  store_le(at + 8, static_cast<uint32_t>(payload));
  store_le(at + 12, value);
  std::fill(at + frame_header_size + payload, at + frame_size(payload), uint8_t{0});
  size_ += frame_size(payload);
  ++frames_;
  return {at + frame_header_size, payload};
}

void BatchWriter::append(const Frame& frame) {
  const auto payload = append(frame.type, frame.stream, frame.value, frame.payload.size());
  if (!payload.empty()) std::memcpy(payload.data(), frame.payload.data(), payload.size());
}

void BatchWriter::shorten_last(size_t payload) {
  uint8_t* const at = buffer_.data() + last_;
  store_le(at + 8, static_cast<uint32_t>(payload));
  std::fill(at + frame_header_size + payload, at + frame_size(payload), uint8_t{0});
  size_ = last_ + frame_size(payload);
}

uint32_t BatchWriter::finish(uint64_t sequence, uint64_t taken) {
  assert(frames_ > 0);
  std::ranges::copy(batch_magic, buffer_.data());
  store_le(buffer_.data() + 4, static_cast<uint32_t>(size_));
  store_le(buffer_.data() + 8, sequence);
  store_le(buffer_.data() + 16, frames_);
  store_le(buffer_.data() + 20, static_cast<uint32_t>(taken));
  return static_cast<uint32_t>(size_);
}

std::optional<Batch> Batch::parse(std::span<const uint8_t> bytes, uint64_t sequence, From from) {
  ByteReader reader(bytes);
  const bool magic = equal(reader.bytes(batch_magic.size()), batch_magic);
  const auto length = reader.number<uint32_t>();
  const auto told_sequence = reader.number<uint64_t>();
  const auto frames = reader.number<uint32_t>();
  const auto taken = reader.number<uint32_t>();
  if (!reader.ok() || !magic || length != bytes.size() || length > max_batch || length % 8 != 0 ||
      told_sequence != sequence || frames == 0) {
    return std::nullopt;
  }
  const auto body = bytes.subspan(batch_header_size);
  auto rest = body;
  for (uint32_t i = 0; i < frames; ++i) {
    Frame frame;
    if (!take_frame(rest, frame) || !allowed(frame, from)) return std::nullopt;
  }
  return rest.empty() ? std::optional(Batch(body, taken)) : std::nullopt;
}

std::optional<Frame> Batch::next() {
  Frame frame;
  if (rest_.empty() || !take_frame(rest_, frame)) return std::nullopt;
  return frame;
}

// --- payloads ---

void encode(const Target& target, std::span<uint8_t> out) {
  assert(out.size() >= encoded_size(target));
  out[0] = static_cast<uint8_t>(target.type);
  out[1] = static_cast<uint8_t>(target.family);
  store_le(out.data() + 2, target.port);
  store_le(out.data() + 4, static_cast<uint16_t>(target.node.size()));
  store_le(out.data() + 6, uint16_t{0});
  std::ranges::copy(target.node, out.data() + target_header_size);
}

std::optional<Target> parse_target(std::span<const uint8_t> payload) {
  ByteReader reader(payload);
  const auto type = reader.number<uint8_t>();
  const auto family = reader.number<uint8_t>();
  Target target;
  target.port = reader.number<uint16_t>();
  const auto length = reader.number<uint16_t>();
  reader.skip(2);
  const auto node = reader.bytes(length);
  if (!reader.ok() || reader.left() != 0 || length < 1 || length > max_node) return std::nullopt;
  if (type != 1 && type != 2) return std::nullopt;
  if (family != 0 && family != 4 && family != 6) return std::nullopt;
  if (std::ranges::find(node, uint8_t{0}) != node.end()) return std::nullopt;
  target.type = static_cast<SocketType>(type);
  target.family = static_cast<Family>(family);
  target.node = {reinterpret_cast<const char*>(node.data()), node.size()};
  return target;
}

void encode(const sockaddr_storage& address, std::span<uint8_t> out) {
  assert(out.size() >= address_size);
  std::ranges::fill(out.first(address_size), uint8_t{0});
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    out[0] = static_cast<uint8_t>(Family::ipv4);
    store_le(out.data() + 2, ntohs(v4.sin_port));
    std::memcpy(out.data() + 8, &v4.sin_addr, sizeof v4.sin_addr);
  } else if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    out[0] = static_cast<uint8_t>(Family::ipv6);
    store_le(out.data() + 2, ntohs(v6.sin6_port));
    store_le(out.data() + 4, static_cast<uint32_t>(v6.sin6_scope_id));
    std::memcpy(out.data() + 8, &v6.sin6_addr, sizeof v6.sin6_addr);
  }
}

sockaddr_storage parse_address(std::span<const uint8_t> bytes) {
  assert(bytes.size() >= address_size);
  sockaddr_storage address{};
  const auto port = htons(load_le<uint16_t>(bytes.data() + 2));
  if (bytes[0] == static_cast<uint8_t>(Family::ipv4)) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(address);
    v4.sin_family = AF_INET;
    v4.sin_port = port;
    std::memcpy(&v4.sin_addr, bytes.data() + 8, sizeof v4.sin_addr);
  } else if (bytes[0] == static_cast<uint8_t>(Family::ipv6)) {
    auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = port;
    v6.sin6_scope_id = load_le<uint32_t>(bytes.data() + 4);
    std::memcpy(&v6.sin6_addr, bytes.data() + 8, sizeof v6.sin6_addr);
  }
  return address;
}

void encode(const Opened& opened, std::span<uint8_t> out) {
  encode(opened.local, out.first(address_size));
  encode(opened.peer, out.subspan(address_size, address_size));
}

Opened parse_opened(std::span<const uint8_t> payload) {
  return {.local = parse_address(payload.first(address_size)),
          .peer = parse_address(payload.subspan(address_size, address_size))};
}

void encode(const Accepted& accepted, std::span<uint8_t> out) {
  store_le(out.data(), accepted.listener);
  store_le(out.data() + 4, uint32_t{0});
  encode(accepted.addresses, out.subspan(8));
}

Accepted parse_accepted(std::span<const uint8_t> payload) {
  return {.listener = load_le<uint32_t>(payload.data()), .addresses = parse_opened(payload.subspan(8))};
}

namespace {

constexpr std::array counter_fields{&Counters::streams_now,         &Counters::streams_opened,
                                    &Counters::opens_refused,       &Counters::bytes_to_services,
                                    &Counters::bytes_from_services, &Counters::datagrams_dropped,
                                    &Counters::batches_repeated,    &Counters::age_ms,
                                    &Counters::lingering_bytes,     &Counters::lingering_streams,
                                    &Counters::lingering_lost,      &Counters::memory};
static_assert(8 * counter_fields.size() == counters_size);

}  // namespace

void encode(const Counters& counters, std::span<uint8_t> out) {
  assert(out.size() >= counters_size);
  for (size_t i = 0; i < counter_fields.size(); ++i)
    store_le(out.data() + 8 * i, counters.*counter_fields[i]);
}

Counters parse_counters(std::span<const uint8_t> payload) {
  ByteReader reader(payload);
  Counters counters;
  for (const auto field : counter_fields) {
    if (reader.left() >= 8) counters.*field = reader.number<uint64_t>();
  }
  return counters;
}

}  // namespace nvsock::relay_v2
