// Batches and payloads of the second generation, from either side. What parses comes back the same from the
// encoder, but for reserved bytes.
//
// Input: one byte whose lowest bit is the side, then the batch.
#include <vector>

#include "libnvsock/relay/v2.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace nvsock;
using namespace nvsock::relay_v2;
using fuzz::check;

// Parsed, encoded and parsed again a value is the same; bytes that stand for nothing may differ the first
// time.
template <typename Value>
void round_trip(const Value& value, size_t size, Value (*parse)(std::span<const uint8_t>)) {
  std::vector<uint8_t> once(size), twice(size);
  encode(value, once);
  encode(parse(once), twice);
  check(once == twice, "an encoded value comes back as it was");
}

void payload(std::span<const uint8_t> bytes) {
  if (bytes.size() >= address_size) round_trip(parse_address(bytes), address_size, parse_address);
  if (bytes.size() >= opened_size) round_trip(parse_opened(bytes), opened_size, parse_opened);
  if (bytes.size() >= accepted_size) round_trip(parse_accepted(bytes), accepted_size, parse_accepted);
  if (bytes.size() >= least_counters_size) round_trip(parse_counters(bytes), counters_size, parse_counters);
  if (const auto target = parse_target(bytes)) {
    std::vector<uint8_t> encoded(encoded_size(*target));
    encode(*target, encoded);
    check(encoded.size() == bytes.size(), "a target is as long as its bytes");
    check(parse_target(encoded).has_value(), "an encoded target parses");
  }
}

void batch(std::span<const uint8_t> bytes, Batch::From from) {
  const uint64_t sequence = bytes.size() < 16 ? 0 : load_le<uint64_t>(bytes.data() + 8);
  auto parsed = Batch::parse(bytes, sequence, from);
  check(!Batch::parse(bytes, sequence + 1, from), "a batch has one sequence");
  if (!parsed) return;
  std::vector<uint8_t> again(bytes.size());
  BatchWriter writer(again);
  while (const auto frame = parsed->next()) {
    check(writer.fits(frame->payload.size()), "frames fit where they came from");
    writer.append(*frame);
    payload(frame->payload);
  }
  check(writer.finish(sequence, parsed->taken()) == bytes.size(), "a batch is as long as its frames");
  const auto second = Batch::parse(again, sequence, from);
  check(second && second->taken() == parsed->taken(), "an encoded batch parses, and is the same");
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const uint8_t> bytes(data + 1, size - 1);
  batch(bytes, (data[0] & 1) != 0 ? Batch::From::drive : Batch::From::host);
  payload(bytes);
  return 0;
}
