// The bytes of the second generation: the vectors of docs/relay-protocol.md section 11 as they stand there,
// round trips, and that nothing malformed is taken.
#include "libnvsock/relay/v2.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/unit/support.hpp"

namespace nvsock::relay_v2 {
namespace {

using Bytes = std::vector<uint8_t>;
using From = Batch::From;

// --- the vectors of the text ---

// Every block fenced as "```vector NAME", by name.
std::map<std::string, Bytes> read_vectors(const char* path) {
  std::map<std::string, Bytes> vectors;
  std::ifstream file(path);
  const std::string fence = "```vector ";
  Bytes* open = nullptr;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(fence)) {
      open = &vectors[line.substr(fence.size())];
    } else if (line.starts_with("```")) {
      open = nullptr;
    } else if (open != nullptr) {
      std::istringstream digits(line);
      for (unsigned byte = 0; digits >> std::hex >> byte;) open->push_back(static_cast<uint8_t>(byte));
    }
  }
  return vectors;
}

const Bytes& vector_of(const std::string& name) {
  static const std::map<std::string, Bytes> all = read_vectors(NVSOCK_PROTOCOL_TEXT);
  static const Bytes none;
  const auto found = all.find(name);
  EXPECT_NE(found, all.end()) << "no vector " << name << " in " NVSOCK_PROTOCOL_TEXT;
  return found == all.end() ? none : found->second;
}

// --- values as one writes them ---

std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string text_of(std::span<const uint8_t> bytes) {
  return {bytes.begin(), bytes.end()};
}

std::array<uint8_t, 16> counting_from(uint8_t first) {
  std::array<uint8_t, 16> out{};
  for (uint8_t& byte : out) byte = first++;
  return out;
}

sockaddr_storage address(const char* text, uint16_t port, uint32_t scope = 0) {
  sockaddr_storage out{};
  auto& v4 = reinterpret_cast<sockaddr_in&>(out);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(out);
  if (inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
  } else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    v6.sin6_scope_id = scope;
  }
  return out;
}

std::string shown(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(ntohs(v4.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    return "[" + std::string(text) + "%" + std::to_string(v6.sin6_scope_id) +
           "]:" + std::to_string(ntohs(v6.sin6_port));
  }
  return "unknown";
}

template <typename Value>
Bytes encoded(const Value& value, size_t size) {
  Bytes out(size, 0xee);  // what the encoder leaves alone shows
  encode(value, out);
  return out;
}
Bytes encoded(const Target& target) {
  return encoded(target, encoded_size(target));
}

Bytes batch_of(uint64_t sequence, const std::vector<Frame>& frames, size_t capacity = max_batch,
               uint64_t taken = 0) {
  Bytes out(capacity, 0xee);
  BatchWriter writer(out);
  for (const Frame& frame : frames) writer.append(frame);
  out.resize(writer.finish(sequence, taken));
  return out;
}

std::vector<Frame> frames_of(std::span<const uint8_t> bytes, uint64_t sequence, From from) {
  std::vector<Frame> frames;
  auto batch = Batch::parse(bytes, sequence, from);
  EXPECT_TRUE(batch) << "refused";
  while (batch) {
    const auto frame = batch->next();
    if (!frame) break;
    frames.push_back(*frame);
  }
  return frames;
}

void expect_frame(const Frame& frame, FrameType type, uint32_t stream, uint32_t value,
                  std::span<const uint8_t> payload) {
  EXPECT_EQ(frame.type, type);
  EXPECT_EQ(frame.stream, stream);
  EXPECT_EQ(frame.value, value);
  EXPECT_TRUE(std::ranges::equal(frame.payload, payload))
      << "payload of frame type " << static_cast<int>(type) << ", stream " << stream;
}

// Parsing the vector gives these frames, and these frames give the vector.
void expect_vector(const std::string& name, From from, uint64_t sequence, const std::vector<Frame>& frames,
                   uint64_t taken = 0) {
  const Bytes& vector = vector_of(name);
  EXPECT_EQ(batch_of(sequence, frames, max_batch, taken), vector) << name;
  const auto batch = Batch::parse(vector, sequence, from);
  EXPECT_TRUE(batch && batch->taken() == static_cast<uint32_t>(taken)) << name;
  const std::vector<Frame> parsed = frames_of(vector, sequence, from);
  ASSERT_EQ(parsed.size(), frames.size()) << name;
  for (size_t i = 0; i < frames.size(); ++i) {
    expect_frame(parsed[i], frames[i].type, frames[i].stream, frames[i].value, frames[i].payload);
  }
}

TEST(RelayV2Vectors, capabilities) {
  Bytes page(capability_page_size);
  std::ranges::copy(vector_of("capabilities"), page.begin());
  const auto read = parse_capabilities(page);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->lowest_version, 3);
  EXPECT_EQ(read->highest_version, 3);
  EXPECT_EQ(read->features, feature::datagrams | feature::ipv6 | feature::listeners);
  EXPECT_EQ(read->max_streams, 64u);
  EXPECT_EQ(read->max_batch, 131072u);
  EXPECT_EQ(read->max_wait_ms, 10000u);
  EXPECT_EQ(read->tx_window, 8);
  EXPECT_EQ(read->rx_window, 4);
  EXPECT_EQ(read->lease_s, 30u);
  EXPECT_EQ(read->epoch, counting_from(0x10));
  EXPECT_EQ(read->vendor, "example 1.0");
  EXPECT_EQ(encoded(*read, capability_page_size), page);
}

TEST(RelayV2Vectors, session_request) {
  const Bytes& vector = vector_of("session-request");
  const auto read = parse_session_request(vector);
  ASSERT_TRUE(read);
  EXPECT_TRUE(read->resume);
  EXPECT_EQ(read->version, 3);
  EXPECT_EQ(read->features, feature::datagrams | feature::listeners);
  EXPECT_EQ(read->key.secret, counting_from(0xa0));
  EXPECT_EQ(read->epoch, counting_from(0x10));
  EXPECT_EQ(read->key.handle, 0x8877665544332211u);
  EXPECT_EQ(encoded(*read, session_request_size), vector);
}

TEST(RelayV2Vectors, batches_from_the_host) {
  const Target ssh{SocketType::stream, Family::ipv4, 22, "127.0.0.1"};
  const Bytes target = encoded(ssh);
  expect_vector("host-batch-1", From::host, 7,
                {{FrameType::open, 5, 262144, target},
                 {FrameType::data, 1, 0, bytes_of("hello")},
                 {FrameType::window, 3, 65536, {}},
                 {FrameType::fin, 1, 0, {}}},
                4294967298);
  const auto read = parse_target(frames_of(vector_of("host-batch-1"), 7, From::host).at(0).payload);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->type, ssh.type);
  EXPECT_EQ(read->family, ssh.family);
  EXPECT_EQ(read->port, ssh.port);
  EXPECT_EQ(read->node, ssh.node);

  expect_vector("host-datagrams", From::host, 1,
                {{FrameType::datagram, 9, 0, {}}, {FrameType::datagram, 9, 0, bytes_of("ping")}});

  const Bytes listen = encoded(Target{SocketType::stream, Family::any, 80, "fe80::1"});
  expect_vector("host-listen", From::host, 2,
                {{FrameType::listen, 11, 16, listen}, {FrameType::stat, 0, 0, {}}});
}

TEST(RelayV2Vectors, batches_from_the_drive) {
  const Bytes opened =
      encoded(Opened{.local = address("127.0.0.1", 40000), .peer = address("127.0.0.1", 22)}, opened_size);
  expect_vector("drive-batch-1", From::drive, 4294967298,
                {{FrameType::opened, 5, 262144, opened},
                 {FrameType::data, 5, 0, bytes_of("SSH-2.0-")},
                 {FrameType::reset, 7, 111, {}}},
                7);

  const Bytes listening = encoded(address("fe80::1", 80, 2), address_size);
  const Bytes accepted =
      encoded(Accepted{11, {.local = address("fe80::1", 80, 2), .peer = address("2001:db8::9", 50000)}},
              accepted_size);
  expect_vector("drive-accepted", From::drive, 3,
                {{FrameType::listening, 11, 0, listening}, {FrameType::accepted, 2, 4096, accepted}});
  const Accepted read = parse_accepted(frames_of(vector_of("drive-accepted"), 3, From::drive).at(1).payload);
  EXPECT_EQ(read.listener, 11u);
  EXPECT_EQ(shown(read.addresses.local), "[fe80::1%2]:80");
  EXPECT_EQ(shown(read.addresses.peer), "[2001:db8::9%0]:50000");

  const Bytes counters =
      encoded(Counters{3, 1000, 2, 5000000000, 6000000000, 7, 8, 90000, 65536, 1, 0, 400000}, counters_size);
  expect_vector("drive-stat", From::drive, 4, {{FrameType::stat, 0, 0, counters}});
}

// CDW10 to 15 as they stand in the command.
Bytes command_dwords(const Command& command) {
  Bytes bytes;
  for (const uint32_t dword :
       {command.cdw10, command.cdw11, command.cdw12, command.cdw13, command.cdw14, command.cdw15}) {
    bytes.resize(bytes.size() + 4);
    store_le(bytes.data() + bytes.size() - 4, dword);
  }
  return bytes;
}

void expect_command(const std::string& name, uint8_t opcode, uint32_t length, const Call& call) {
  Command command;
  command.data_length = length;
  encode(call, command);
  EXPECT_EQ(command.opcode, opcode) << name;
  EXPECT_EQ(command_dwords(command), vector_of(name)) << name;
  const Call read = parse_call(command);
  EXPECT_EQ(read.function, call.function) << name;
  EXPECT_EQ(read.handle, call.handle) << name;
  EXPECT_EQ(read.sequence, call.sequence) << name;
  EXPECT_EQ(read.wait_ms, call.wait_ms) << name;
  EXPECT_EQ(read.distance, call.distance) << name;
  EXPECT_EQ(told_length(command), length) << name;
}

TEST(RelayV2Vectors, commands) {
  constexpr uint64_t handle = 0x8877665544332211;
  expect_command("capabilities-command", opcode::to_host, 4096, {.function = function::capabilities});
  expect_command("attach-command", opcode::to_drive, 64, {.function = function::attach});
  expect_command("detach-command", opcode::no_data, 0, {.function = function::detach, .handle = handle});
  expect_command("tx-command", opcode::to_drive, 120,
                 {.function = function::tx, .handle = handle, .sequence = 7});
  expect_command(
      "rx-command", opcode::to_host, 131072,
      {.function = function::rx, .handle = handle, .sequence = 2, .wait_ms = 10000, .distance = 3});
}

TEST(RelayV2, of_opcode_C0_only_detach_is_of_this_generation) {
  for (const uint32_t cdw10 : {0u, 64u, 128u, 129u, 1024u}) {
    Command command;
    command.opcode = opcode::no_data;
    command.cdw10 = cdw10;
    EXPECT_FALSE(is_call(command)) << cdw10;
    command.cdw12 = function::detach;
    EXPECT_EQ(is_call(command), cdw10 == 0) << cdw10;
  }
  Command identify;
  identify.opcode = nvsock::opcode::identify;
  identify.cdw12 = function::detach;
  EXPECT_FALSE(is_call(identify));
}

TEST(RelayV2, the_high_half_of_a_sequence_is_the_one_that_makes_it_nearest) {
  constexpr uint64_t turn = uint64_t{1} << 32;
  EXPECT_EQ(nearest_sequence(5, 5), 5u);
  EXPECT_EQ(nearest_sequence(0, 1), 0u);
  EXPECT_EQ(nearest_sequence(8, 1), 8u);
  EXPECT_EQ(nearest_sequence(1, turn - 1), turn + 1);
  EXPECT_EQ(nearest_sequence(UINT32_MAX, turn + 1), turn - 1);
  EXPECT_EQ(nearest_sequence(3, 7 * turn + 5), 7 * turn + 3);
  EXPECT_EQ(nearest_sequence(UINT32_MAX, 1), turn - 1) << "there is none below 0";
}

TEST(RelayV2, secrets_are_equal_to_the_last_bit) {
  const Secret secret = counting_from(1);
  EXPECT_TRUE(equal_secrets(secret, counting_from(1)));
  for (size_t i = 0; i < secret.size(); ++i) {
    for (const int bit : {0, 7}) {
      Secret other = secret;
      other[i] = static_cast<uint8_t>(other[i] ^ 1 << bit);
      EXPECT_FALSE(equal_secrets(secret, other)) << i;
    }
  }
}

// --- capability page and session request ---

Capabilities some_capabilities() {
  Capabilities capabilities;
  capabilities.epoch = counting_from(1);
  capabilities.vendor = "a maker";
  return capabilities;
}

TEST(RelayV2, capabilities_at_both_ends_of_their_ranges) {
  for (const bool most : {false, true}) {
    Capabilities sent = some_capabilities();
    sent.lowest_version = most ? 3 : 0;
    sent.highest_version = most ? 0xffff : 0;
    sent.features = most ? UINT32_MAX : 0;
    sent.max_streams = most ? UINT32_MAX : 1;
    sent.max_batch = most ? max_batch : min_batch;
    sent.max_wait_ms = most ? max_wait_ms : 1;
    sent.tx_window = most ? 0xffff : 1;
    sent.rx_window = most ? 255 : 1;
    sent.lease_s = most ? UINT32_MAX : 1;
    const std::string vendor(most ? 71 : 0, 'v');
    sent.vendor = vendor;
    const Bytes page = encoded(sent, capability_page_size);
    const auto read = parse_capabilities(page);
    ASSERT_TRUE(read) << most;
    EXPECT_EQ(read->vendor, vendor);
    EXPECT_EQ(encoded(*read, capability_page_size), page);
  }
}

TEST(RelayV2, capabilities_out_of_their_ranges_are_refused) {
  const auto refused = [](auto change) {
    Capabilities sent = some_capabilities();
    change(sent);
    return !parse_capabilities(encoded(sent, capability_page_size));
  };
  EXPECT_FALSE(refused([](Capabilities&) {}));
  EXPECT_TRUE(refused([](Capabilities& c) { c.lowest_version = 4; }));
  EXPECT_TRUE(refused([](Capabilities& c) { c.max_streams = 0; }));
  for (const uint32_t size : {0u, 4088u, 4100u, 131076u, 131080u, UINT32_MAX}) {
    EXPECT_TRUE(refused([size](Capabilities& c) { c.max_batch = size; })) << size;
  }
  for (const uint32_t wait : {0u, 10001u, UINT32_MAX}) {
    EXPECT_TRUE(refused([wait](Capabilities& c) { c.max_wait_ms = wait; })) << wait;
  }
  EXPECT_TRUE(refused([](Capabilities& c) { c.tx_window = 0; }));
  EXPECT_TRUE(refused([](Capabilities& c) { c.rx_window = 0; }));
  EXPECT_TRUE(refused([](Capabilities& c) { c.rx_window = 256; }));
  EXPECT_TRUE(refused([](Capabilities& c) { c.lease_s = 0; }));
}

TEST(RelayV2, a_page_of_another_kind_is_none_of_this_protocol) {
  EXPECT_FALSE(parse_capabilities(Bytes(capability_page_size))) << "a first-generation drive's answer";
  const Bytes page = encoded(some_capabilities(), capability_page_size);
  for (size_t i = 0; i < 8; ++i) {
    Bytes other = page;
    other[i] ^= 1;
    EXPECT_FALSE(parse_capabilities(other)) << "magic byte " << i;
  }
  for (size_t size = 0; size < capability_bytes; ++size) {
    EXPECT_FALSE(parse_capabilities(std::span(page).first(size))) << size;
  }
  EXPECT_TRUE(parse_capabilities(std::span(page).first(capability_bytes)));
}

TEST(RelayV2, a_makers_name_without_its_zero_ends_with_its_field) {
  Bytes page = encoded(some_capabilities(), capability_page_size);
  std::fill(page.begin() + 56, page.end(), uint8_t{'x'});
  const auto read = parse_capabilities(page);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->vendor, std::string(72, 'x'));
}

TEST(RelayV2, session_requests) {
  for (const bool resume : {false, true}) {
    SessionRequest sent{.resume = resume,
                        .version = 7,
                        .features = 0xf0f0f0f0,
                        .epoch = counting_from(90),
                        .key = {.handle = UINT64_MAX, .secret = counting_from(3)}};
    const Bytes bytes = encoded(sent, session_request_size);
    const auto read = parse_session_request(bytes);
    ASSERT_TRUE(read);
    EXPECT_EQ(read->resume, resume);
    EXPECT_EQ(read->version, 7) << "whether it is spoken is the drive's to say";
    EXPECT_EQ(read->features, sent.features);
    EXPECT_EQ(read->key.handle, sent.key.handle);
    EXPECT_EQ(read->key.secret, sent.key.secret);
    EXPECT_EQ(read->epoch, sent.epoch);
    for (size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_FALSE(parse_session_request(std::span(bytes).first(size))) << size;
    }
    for (size_t i = 0; i < 8; ++i) {
      Bytes other = bytes;
      other[i] ^= 0x80;
      EXPECT_FALSE(parse_session_request(other)) << "magic byte " << i;
    }
  }
}

TEST(RelayV2, a_session_request_names_a_session) {
  EXPECT_FALSE(parse_session_request(encoded(SessionRequest{.key = {.handle = 0}}, session_request_size)));
}

TEST(RelayV2, reserved_bytes_are_ignored) {
  Bytes request = encoded(SessionRequest{}, session_request_size);
  request[10] = 0xfe;  // flags other than RESUME
  std::fill(request.begin() + 56, request.end(), uint8_t{0xff});
  const auto read = parse_session_request(request);
  ASSERT_TRUE(read);
  EXPECT_FALSE(read->resume);

  Bytes page = encoded(some_capabilities(), capability_page_size);
  std::fill(page.begin() + 36, page.begin() + 40, uint8_t{0xff});
  std::fill(page.begin() + 128, page.end(), uint8_t{0xff});
  EXPECT_TRUE(parse_capabilities(page));

  Bytes batch = batch_of(1, {{FrameType::data, 1, 0, bytes_of("a")}});
  std::fill(batch.begin() + 25, batch.begin() + 28, uint8_t{0xff});
  std::fill(batch.begin() + 36, batch.begin() + 40, uint8_t{0xff});  // value of DATA
  batch.back() = 0xff;                                               // padding
  EXPECT_EQ(frames_of(batch, 1, From::host).size(), 1u);
}

TEST(RelayV2, rx_has_14_bits_of_milliseconds_and_8_of_distance) {
  Command command;
  command.cdw12 = 0xffffffff;
  EXPECT_EQ(parse_call(command).wait_ms, 0x3fffu) << "bits 31:30 are reserved";
  EXPECT_EQ(parse_call(command).distance, 255u);
  EXPECT_EQ(parse_call(command).function, 255);
}

TEST(RelayV2, counters_that_come_later_are_left_out_and_those_that_are_missing_are_0) {
  const Counters sent{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  Bytes bytes = encoded(sent, counters_size);
  bytes.resize(counters_size + 16, 0xff);
  EXPECT_EQ(parse_counters(bytes).memory, 12u);
  const Counters old = parse_counters(std::span(bytes).first(least_counters_size));
  EXPECT_EQ(old.age_ms, 8u);
  EXPECT_EQ(old.lingering_bytes, 0u);
  EXPECT_EQ(old.memory, 0u);
}

// --- batches ---

// One batch a side with every frame it may send.
std::vector<Frame> all_frames(From from) {
  static const Bytes target = encoded(Target{SocketType::datagram, Family::ipv6, 53, "::1"});
  static const Bytes counters = encoded(Counters{1, 2, 3, 4, 5, 6, 7, 8}, counters_size);
  static const Bytes opened = encoded(Opened{.local = address("10.0.0.1", 1), .peer = {}}, opened_size);
  static const Bytes accepted = encoded(Accepted{3, {}}, accepted_size);
  std::vector<Frame> frames{{FrameType::data, 1, 0, bytes_of("12345678")},
                            {FrameType::datagram, 3, 0, {}},
                            {FrameType::datagram, 3, 0, bytes_of("123456789")},
                            {FrameType::window, 1, max_window, {}},
                            {FrameType::fin, 1, 0, {}},
                            {FrameType::reset, UINT32_MAX, 4095, {}}};
  if (from == From::host) {
    frames.push_back({FrameType::open, 5, 0, target});
    frames.push_back({FrameType::listen, 7, 128, target});
    frames.push_back({FrameType::stat, 0, 0, {}});
  } else {
    frames.push_back({FrameType::opened, 5, max_window, opened});
    frames.push_back({FrameType::listening, 7, 0, std::span(opened).first(address_size)});
    frames.push_back({FrameType::accepted, 2, 1, accepted});
    frames.push_back({FrameType::stat, 0, 0, counters});
  }
  return frames;
}

TEST(RelayV2Batch, every_frame_comes_back_as_it_was_sent) {
  for (const From from : {From::host, From::drive}) {
    const std::vector<Frame> frames = all_frames(from);
    const Bytes bytes = batch_of(UINT64_MAX, frames);
    EXPECT_EQ(bytes.size() % 8, 0u);
    const std::vector<Frame> read = frames_of(bytes, UINT64_MAX, from);
    ASSERT_EQ(read.size(), frames.size());
    for (size_t i = 0; i < frames.size(); ++i) {
      expect_frame(read[i], frames[i].type, frames[i].stream, frames[i].value, frames[i].payload);
    }
  }
}

TEST(RelayV2Batch, cut_anywhere_it_is_refused) {
  for (const From from : {From::host, From::drive}) {
    const Bytes whole = batch_of(9, all_frames(from));
    for (size_t size = 0; size < whole.size(); ++size) {
      Bytes cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
      EXPECT_FALSE(Batch::parse(cut, 9, from)) << size;
      if (size < batch_header_size) continue;
      store_le(cut.data() + 4, static_cast<uint32_t>(size));  // a header that says so does not help
      EXPECT_FALSE(Batch::parse(cut, 9, from)) << size;
    }
  }
}

TEST(RelayV2Batch, a_header_that_does_not_tell_the_truth_is_refused) {
  const Bytes good = batch_of(9, {{FrameType::data, 1, 0, bytes_of("12345678")}, {FrameType::fin, 1, 0, {}}});
  ASSERT_TRUE(Batch::parse(good, 9, From::host));
  const auto refused = [&](size_t offset, auto value) {
    Bytes bytes = good;
    store_le(bytes.data() + offset, value);
    return !Batch::parse(bytes, 9, From::host);
  };
  const auto size = static_cast<uint32_t>(good.size());
  for (const uint32_t length : {0u, 24u, size - 16, size - 8, size - 1, size + 1, size + 8, UINT32_MAX}) {
    EXPECT_TRUE(refused(4, length)) << "length " << length;
  }
  for (const uint64_t sequence : {0ull, 8ull, 10ull, 9ull + (1ull << 32), ~0ull}) {
    EXPECT_TRUE(refused(8, sequence)) << "sequence " << sequence;
    EXPECT_FALSE(Batch::parse(good, sequence, From::host)) << "asked for " << sequence;
  }
  for (const uint32_t frames : {0u, 1u, 3u, UINT32_MAX})
    EXPECT_TRUE(refused(16, frames)) << "frames " << frames;
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(refused(i, uint8_t{0})) << "magic byte " << i;

  Bytes longer = good;
  longer.resize(good.size() + 8);
  EXPECT_FALSE(Batch::parse(longer, 9, From::host)) << "bytes behind the batch";
  store_le(longer.data() + 4, size + 8);
  EXPECT_FALSE(Batch::parse(longer, 9, From::host)) << "bytes behind the last frame";
}

TEST(RelayV2Batch, the_largest_is_taken_and_8_bytes_more_are_not) {
  for (const size_t size : {size_t{max_batch}, size_t{max_batch} + 8}) {
    Bytes bytes(size);
    BatchWriter writer(bytes);
    writer.append(FrameType::data, 1, 0, writer.room());
    EXPECT_EQ(writer.finish(1, 0), size);
    EXPECT_EQ(Batch::parse(bytes, 1, From::drive).has_value(), size == max_batch);
  }
}

TEST(RelayV2Batch, a_frame_that_runs_beyond_the_batch_is_refused) {
  Bytes bytes = batch_of(1, {{FrameType::data, 1, 0, bytes_of("12345678")}, {FrameType::fin, 1, 0, {}}});
  for (const uint32_t length : {0u, 9u, 24u, 25u, 40u, UINT32_MAX - 7, UINT32_MAX}) {
    store_le(bytes.data() + batch_header_size + 8, length);
    EXPECT_FALSE(Batch::parse(bytes, 1, From::host)) << length;
  }
}

bool taken(From from, const Frame& frame) {
  return Batch::parse(batch_of(1, {frame}), 1, from).has_value();
}
bool taken(From from, FrameType type, uint32_t stream, uint32_t value, size_t payload) {
  const Bytes bytes(payload);
  return taken(from, {type, stream, value, bytes});
}

TEST(RelayV2Batch, unknown_types_are_refused) {
  for (unsigned type = 0; type < 256; ++type) {
    if (type >= 1 && type <= 11) continue;
    for (const From from : {From::host, From::drive}) {
      EXPECT_FALSE(taken(from, static_cast<FrameType>(type), 1, 0, 0)) << type;
      EXPECT_FALSE(taken(from, static_cast<FrameType>(type), 0, 0, 0)) << type;
    }
  }
}

TEST(RelayV2Batch, frames_of_the_other_side_are_refused) {
  for (const From from : {From::host, From::drive}) {
    const From other = from == From::host ? From::drive : From::host;
    for (const Frame& frame : all_frames(from)) {
      EXPECT_TRUE(taken(from, frame));
      const bool both = frame.type >= FrameType::data && frame.type <= FrameType::reset;
      EXPECT_EQ(taken(other, frame), both) << static_cast<int>(frame.type);
    }
  }
}

TEST(RelayV2Batch, only_stat_is_about_no_stream) {
  for (const From from : {From::host, From::drive}) {
    for (Frame frame : all_frames(from)) {
      frame.stream = frame.type == FrameType::stat ? 1 : 0;
      EXPECT_FALSE(taken(from, frame)) << static_cast<int>(frame.type);
    }
  }
}

TEST(RelayV2Batch, one_bad_frame_spoils_the_batch) {
  const Frame good{FrameType::data, 1, 0, bytes_of("x")};
  const Frame bad{FrameType::window, 1, 0, {}};
  for (const std::vector<Frame>& frames : {std::vector<Frame>{bad, good}, {good, bad}, {good, bad, good}}) {
    EXPECT_FALSE(Batch::parse(batch_of(1, frames), 1, From::host));
  }
}

TEST(RelayV2Batch, values_are_in_their_ranges) {
  struct Range {
    From from;
    Frame frame;
    std::vector<uint32_t> good, bad;
  };
  const Frame open = all_frames(From::host)[6], listen = all_frames(From::host)[7];
  const Frame opened = all_frames(From::drive)[6], accepted = all_frames(From::drive)[8];
  const uint32_t beyond = max_window + 1;
  const std::vector<Range> ranges{
      {From::host, open, {0, 1, max_window}, {beyond, UINT32_MAX}},
      {From::drive, opened, {0, max_window}, {beyond, UINT32_MAX}},
      {From::drive, accepted, {0, max_window}, {beyond, UINT32_MAX}},
      {From::host, {FrameType::window, 1, 0, {}}, {1, max_window}, {0, beyond, UINT32_MAX}},
      {From::drive, {FrameType::window, 1, 0, {}}, {1, max_window}, {0, beyond, UINT32_MAX}},
      {From::host, {FrameType::reset, 1, 0, {}}, {0, 104, 4095}, {4096, UINT32_MAX}},
      {From::host, listen, {1, 128}, {0, 129, UINT32_MAX}},
  };
  for (const Range& range : ranges) {
    Frame frame = range.frame;
    for (const uint32_t value : range.good) {
      frame.value = value;
      EXPECT_TRUE(taken(range.from, frame)) << static_cast<int>(frame.type) << " value " << value;
    }
    for (const uint32_t value : range.bad) {
      frame.value = value;
      EXPECT_FALSE(taken(range.from, frame)) << static_cast<int>(frame.type) << " value " << value;
    }
  }
}

TEST(RelayV2Batch, payloads_are_as_long_as_their_type_demands) {
  struct Lengths {
    From from;
    FrameType type;
    uint32_t stream, value;
    std::vector<size_t> good, bad;
  };
  const std::vector<Lengths> all{
      {From::host, FrameType::data, 1, 0, {1, 7, 8, 9, 131032}, {0}},
      {From::host, FrameType::datagram, 1, 0, {0, 1, 65507}, {65508, 65512}},
      {From::host, FrameType::window, 1, 1, {0}, {1, 8}},
      {From::host, FrameType::fin, 1, 0, {0}, {1, 8}},
      {From::host, FrameType::reset, 1, 0, {0}, {1, 8}},
      {From::host, FrameType::stat, 0, 0, {0}, {1, 63, 64, 65}},
      {From::drive, FrameType::stat, 0, 0, {64, 72, 96, 1024}, {0, 1, 56, 63, 65, 97}},
      {From::drive, FrameType::opened, 1, 0, {48}, {0, 24, 47, 49, 56}},
      {From::drive, FrameType::listening, 1, 0, {24}, {0, 23, 25, 48}},
      {From::drive, FrameType::accepted, 2, 0, {56}, {0, 48, 55, 57, 64}},
  };
  for (const Lengths& lengths : all) {
    for (const size_t size : lengths.good) {
      EXPECT_TRUE(taken(lengths.from, lengths.type, lengths.stream, lengths.value, size))
          << static_cast<int>(lengths.type) << " length " << size;
    }
    for (const size_t size : lengths.bad) {
      EXPECT_FALSE(taken(lengths.from, lengths.type, lengths.stream, lengths.value, size))
          << static_cast<int>(lengths.type) << " length " << size;
    }
  }
}

// --- targets ---

TEST(RelayV2Target, every_type_and_family_and_the_longest_node) {
  for (const SocketType type : {SocketType::stream, SocketType::datagram}) {
    for (const Family family : {Family::any, Family::ipv4, Family::ipv6}) {
      for (const size_t length : {size_t{1}, size_t{max_node}}) {
        const std::string node(length, 'n');
        const Bytes bytes = encoded(Target{type, family, 65535, node});
        EXPECT_EQ(bytes.size(), 8 + length);
        const auto read = parse_target(bytes);
        ASSERT_TRUE(read);
        EXPECT_EQ(read->type, type);
        EXPECT_EQ(read->family, family);
        EXPECT_EQ(read->port, 65535);
        EXPECT_EQ(read->node, node);
      }
    }
  }
}

// Both as a payload and within an OPEN: a batch with a bad target has no effect at all.
void expect_bad_target(const Bytes& bytes, const std::string& why) {
  EXPECT_FALSE(parse_target(bytes)) << why;
  for (const FrameType type : {FrameType::open, FrameType::listen}) {
    EXPECT_FALSE(taken(From::host, {type, 1, 1, bytes})) << why;
  }
}

TEST(RelayV2Target, malformed_ones_are_refused) {
  const Bytes good = encoded(Target{SocketType::stream, Family::any, 22, "localhost"});
  ASSERT_TRUE(parse_target(good));
  for (size_t size = 0; size < good.size(); ++size) {
    expect_bad_target({good.begin(), good.begin() + static_cast<ptrdiff_t>(size)},
                      "cut at " + std::to_string(size));
  }
  const auto changed = [&](size_t offset, auto value) {
    Bytes bytes = good;
    store_le(bytes.data() + offset, value);
    return bytes;
  };
  for (const unsigned type : {0u, 3u, 255u})
    expect_bad_target(changed(0, static_cast<uint8_t>(type)), "type");
  for (unsigned family = 0; family < 256; ++family) {
    if (family == 0 || family == 4 || family == 6) continue;
    expect_bad_target(changed(1, static_cast<uint8_t>(family)), "family " + std::to_string(family));
  }
  for (const unsigned length : {0u, 8u, 10u, 253u, 254u, 65535u}) {
    expect_bad_target(changed(4, static_cast<uint16_t>(length)), "length " + std::to_string(length));
  }
  for (size_t i = 8; i < good.size(); ++i)
    expect_bad_target(changed(i, uint8_t{0}), "a zero byte in the node");

  Bytes longer = good;
  longer.push_back('x');
  expect_bad_target(longer, "a byte behind the node");
  Bytes too_long(8 + max_node + 1, 'n');
  std::copy(good.begin(), good.begin() + 8, too_long.begin());
  store_le(too_long.data() + 4, static_cast<uint16_t>(max_node + 1));
  expect_bad_target(too_long, "a node of 254 bytes");
}

// --- addresses ---

TEST(RelayV2Address, of_both_families_and_unknown) {
  for (const sockaddr_storage& sent :
       {address("127.0.0.1", 22), address("255.254.253.252", 65535), address("2001:db8::1", 443),
        address("fe80::1", 1, UINT32_MAX), sockaddr_storage{}}) {
    EXPECT_EQ(shown(parse_address(encoded(sent, address_size))), shown(sent));
  }
  EXPECT_EQ(shown(sockaddr_storage{}), "unknown");
}

TEST(RelayV2Address, a_family_nobody_knows_is_not_known) {
  Bytes bytes(address_size, 0xff);
  EXPECT_EQ(parse_address(bytes).ss_family, AF_UNSPEC);
}

// --- building a batch ---

TEST(RelayV2Writer, room_is_what_fits) {
  for (size_t capacity = batch_header_size; capacity <= batch_header_size + 200; ++capacity) {
    Bytes buffer(capacity);
    BatchWriter writer(buffer);
    EXPECT_TRUE(writer.empty());
    while (writer.fits(0)) {
      const size_t room = writer.room();
      EXPECT_TRUE(writer.fits(room)) << capacity;
      EXPECT_FALSE(writer.fits(room + 1)) << capacity;
      EXPECT_EQ(room % 8, 0u) << capacity;
      writer.append(FrameType::data, 1, 0, std::min<size_t>(room, 5));
      EXPECT_FALSE(writer.empty());
    }
    EXPECT_EQ(writer.room(), 0u);
    if (!writer.empty()) {
      EXPECT_LE(writer.finish(1, 0), capacity);
    }
  }
}

TEST(RelayV2Writer, a_frame_fills_the_buffer_to_the_byte) {
  Bytes buffer(batch_header_size + frame_header_size + 16);
  BatchWriter writer(buffer);
  EXPECT_EQ(writer.room(), 16u);
  EXPECT_TRUE(writer.fits(16));
  EXPECT_FALSE(writer.fits(17));
  const auto payload = writer.append(FrameType::data, 1, 0, 16);
  EXPECT_EQ(payload.data() + payload.size(), buffer.data() + buffer.size());
  EXPECT_FALSE(writer.fits(0));
  EXPECT_EQ(writer.finish(1, 0), buffer.size());
}

TEST(RelayV2Writer, a_frame_without_payload_fits_where_room_is_0) {
  Bytes buffer(batch_header_size + frame_header_size);
  BatchWriter writer(buffer);
  EXPECT_EQ(writer.room(), 0u);
  EXPECT_TRUE(writer.fits(0));
  writer.append(FrameType::fin, 1, 0, 0);
  EXPECT_FALSE(writer.fits(0));
  EXPECT_EQ(frames_of(std::span(buffer).first(writer.finish(1, 0)), 1, From::host).size(), 1u);
}

TEST(RelayV2Writer, padding_is_zero_whatever_the_buffer_held) {
  const Bytes bytes = batch_of(1, {{FrameType::data, 1, 0, bytes_of("abc")}}, 64);
  EXPECT_EQ(text_of(std::span(bytes).last(8)), std::string("abc\0\0\0\0\0", 8));
}

TEST(RelayV2Writer, the_last_frame_gets_shorter_and_gives_its_room_back) {
  for (const size_t kept : {0, 1, 7, 8, 9, 15, 16, 31, 32}) {
    Bytes buffer(256, 0xee);
    BatchWriter writer(buffer);
    writer.append({FrameType::data, 1, 0, bytes_of("first")});
    const size_t before = writer.room();
    const auto payload = writer.append(FrameType::datagram, 3, 0, 32);
    std::ranges::fill(payload, uint8_t{'p'});
    writer.shorten_last(kept);
    EXPECT_EQ(writer.room(), before - frame_size(kept));
    writer.append({FrameType::data, 5, 0, bytes_of("behind")});
    const uint32_t size = writer.finish(1, 0);
    const std::vector<Frame> read = frames_of(std::span(buffer).first(size), 1, From::drive);
    ASSERT_EQ(read.size(), 3u);
    EXPECT_EQ(text_of(read[0].payload), "first");
    EXPECT_EQ(text_of(read[1].payload), std::string(kept, 'p'));
    EXPECT_EQ(text_of(read[2].payload), "behind");
    const auto padding = std::span(buffer).subspan(24 + 24 + 16 + kept, padded(kept) - kept);
    EXPECT_TRUE(std::ranges::all_of(padding, [](uint8_t byte) { return byte == 0; })) << kept;
  }
}

}  // namespace
}  // namespace nvsock::relay_v2
