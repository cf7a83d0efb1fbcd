#include "libnvsock/nvme/tcp_pdu.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "libnvsock/base/crc32c.hpp"

namespace nvsock::nvme_tcp {
namespace {

namespace flag {
constexpr uint8_t header_digest = 1, data_digest = 2, last = 4, success = 8;
}

// What each type may look like.
struct Shape {
  PduType type;
  From from;
  uint8_t header;
  bool digests;  // carries those that were negotiated
  enum { none, may, must } data;
};
constexpr Shape shapes[] = {
    {PduType::ic_req, From::host, ic_size, false, Shape::none},
    {PduType::ic_resp, From::controller, ic_size, false, Shape::none},
    {PduType::h2c_term, From::host, term_size, false, Shape::may},
    {PduType::c2h_term, From::controller, term_size, false, Shape::may},
    {PduType::capsule_cmd, From::host, capsule_cmd_size, true, Shape::may},
    {PduType::capsule_resp, From::controller, capsule_resp_size, true, Shape::none},
    {PduType::h2c_data, From::host, data_size, true, Shape::must},
    {PduType::c2h_data, From::controller, data_size, true, Shape::must},
    {PduType::r2t, From::controller, r2t_size, true, Shape::none},
};

bool is_term(PduType type) {
  return type == PduType::h2c_term || type == PduType::c2h_term;
}

Digests digests_of(uint8_t bits) {
  return {.header = (bits & flag::header_digest) != 0, .data = (bits & flag::data_digest) != 0};
}
uint8_t bits_of(Digests digests) {
  return static_cast<uint8_t>((digests.header ? flag::header_digest : 0) |
                              (digests.data ? flag::data_digest : 0));
}

// Writes the common header and zeros for the rest; `data` bytes will follow the header.
void begin(PduType type, uint8_t flags, size_t header, uint32_t data, Digests digests,
           std::span<uint8_t> out) {
  std::ranges::fill(out, 0);
  if (data == 0) digests.data = false;
  const size_t data_begins = header + (digests.header ? digest_size : 0);
  out[0] = static_cast<uint8_t>(type);
  out[1] = static_cast<uint8_t>(flags | bits_of(digests));
  out[2] = static_cast<uint8_t>(header);
  out[3] = static_cast<uint8_t>(data != 0 ? data_begins : 0);
  store_le(&out[4], static_cast<uint32_t>(data_begins + data + (digests.data ? digest_size : 0)));
}

// Adds the header's digest and returns how long the header has become.
size_t end(size_t header, Digests digests, std::span<uint8_t> out) {
  if (!digests.header) return header;
  store_digest(out.first(header), out.subspan(header).first<digest_size>());
  return header + digest_size;
}

}  // namespace

std::optional<Header> parse_header(std::span<const uint8_t, common_header_size> bytes, From from,
                                   Digests digests, Fault& fault) {
  const auto wrong = [&](uint32_t where) {
    fault = {FatalError::invalid_header_field, where};
    return std::nullopt;
  };
  const auto type = static_cast<PduType>(bytes[0]);
  const auto* const shape = std::ranges::find_if(
      shapes, [&](const Shape& known) { return known.type == type && known.from == from; });
  if (shape == std::end(shapes)) return wrong(offset::type);
  const uint8_t flags = bytes[1];
  const uint32_t size = load_le<uint32_t>(&bytes[4]);
  Header header{.type = type,
                .last = (flags & flag::last) != 0,
                .success = (flags & flag::success) != 0,
                .header = bytes[2],
                .header_digest = shape->digests && digests.header};
  if (header.header != shape->header) return wrong(offset::hlen);
  const uint32_t begins = header.header + (header.header_digest ? digest_size : 0);
  if (size < begins) return wrong(offset::plen);
  header.data_begins = begins;
  if (shape->digests && ((flags & flag::header_digest) != 0) != digests.header) return wrong(offset::flags);
  if (size == begins) {
    if (shape->data == Shape::must) return wrong(offset::plen);
    return header;
  }
  if (shape->data == Shape::none) return wrong(offset::plen);
  if (is_term(type)) {
    if (size > max_term_size) return wrong(offset::plen);
    header.data = size - begins;
    return header;
  }
  // Neither side asks for more alignment than a double word.
  header.data_begins = bytes[3];
  if (header.data_begins < begins || header.data_begins % 4 != 0) return wrong(offset::pdo);
  header.data_digest = digests.data;
  if (((flags & flag::data_digest) != 0) != digests.data) return wrong(offset::flags);
  const uint32_t around = header.data_begins + (header.data_digest ? digest_size : 0);
  if (size <= around) return wrong(offset::plen);
  header.data = size - around;
  return header;
}

IcReq parse_ic_req(HeaderBytes header) {
  const auto max_r2t = load_le<uint32_t>(&header[12]);
  return {.version = load_le<uint16_t>(&header[8]),
          .alignment = header[10],
          .digests = digests_of(header[11]),
          .max_r2t = max_r2t == UINT32_MAX ? max_r2t : max_r2t + 1};
}

size_t encode(const IcReq& request, std::span<uint8_t, max_header_size> out) {
  begin(PduType::ic_req, 0, ic_size, 0, {}, out);
  store_le(&out[8], request.version);
  out[10] = request.alignment;
  out[11] = bits_of(request.digests);
  store_le(&out[12], request.max_r2t - 1);
  return ic_size;
}

IcResp parse_ic_resp(HeaderBytes header) {
  return {.version = load_le<uint16_t>(&header[8]),
          .alignment = header[10],
          .digests = digests_of(header[11]),
          .max_h2c_data = load_le<uint32_t>(&header[12])};
}

size_t encode(const IcResp& response, std::span<uint8_t, max_header_size> out) {
  begin(PduType::ic_resp, 0, ic_size, 0, {}, out);
  store_le(&out[8], response.version);
  out[10] = response.alignment;
  out[11] = bits_of(response.digests);
  store_le(&out[12], response.max_h2c_data);
  return ic_size;
}

// FEI stands at an odd place: bytes 10 to 13.
Fault parse_term(HeaderBytes header) {
  return {.error = static_cast<FatalError>(load_le<uint16_t>(&header[8])),
          .where = load_le<uint32_t>(&header[10])};
}

size_t encode_term(From from, const Fault& fault, std::span<uint8_t, max_header_size> out) {
  begin(from == From::host ? PduType::h2c_term : PduType::c2h_term, 0, term_size, 0, {}, out);
  store_le(&out[8], static_cast<uint16_t>(fault.error));
  store_le(&out[10], fault.where);
  return term_size;
}

size_t encode_capsule_cmd(const Command& command, uint16_t cid, const nvme::DataPointer& data,
                          uint32_t in_capsule, Digests digests, std::span<uint8_t, max_header_size> out) {
  begin(PduType::capsule_cmd, 0, capsule_cmd_size, in_capsule, digests, out);
  nvme::encode(command, cid, data, out.subspan<common_header_size, nvme::submission_size>());
  return end(capsule_cmd_size, digests, out);
}

size_t encode(const nvme::CompletionEntry& completion, Digests digests,
              std::span<uint8_t, max_header_size> out) {
  begin(PduType::capsule_resp, 0, capsule_resp_size, 0, digests, out);
  nvme::encode(completion, out.subspan<common_header_size, nvme::completion_size>());
  return end(capsule_resp_size, digests, out);
}

std::optional<Data> parse_data(const Header& checked, HeaderBytes header, Fault& fault) {
  const Data data{.cid = load_le<uint16_t>(&header[8]),
                  .tag = load_le<uint16_t>(&header[10]),
                  .offset = load_le<uint32_t>(&header[12]),
                  .length = load_le<uint32_t>(&header[16]),
                  .last = checked.last,
                  .success = checked.success};
  if (data.length != checked.data) {
    fault = {FatalError::invalid_header_field, offset::data_length};
    return std::nullopt;
  }
  return data;
}

size_t encode(const Data& data, From from, Digests digests, std::span<uint8_t, max_header_size> out) {
  begin(from == From::host ? PduType::h2c_data : PduType::c2h_data,
        static_cast<uint8_t>((data.last ? flag::last : 0) | (data.success ? flag::success : 0)), data_size,
        data.length, digests, out);
  store_le(&out[8], data.cid);
  store_le(&out[10], data.tag);
  store_le(&out[12], data.offset);
  store_le(&out[16], data.length);
  return end(data_size, digests, out);
}

R2t parse_r2t(HeaderBytes header) {
  return {.cid = load_le<uint16_t>(&header[8]),
          .tag = load_le<uint16_t>(&header[10]),
          .offset = load_le<uint32_t>(&header[12]),
          .length = load_le<uint32_t>(&header[16])};
}

size_t encode(const R2t& request, Digests digests, std::span<uint8_t, max_header_size> out) {
  begin(PduType::r2t, 0, r2t_size, 0, digests, out);
  store_le(&out[8], request.cid);
  store_le(&out[10], request.tag);
  store_le(&out[12], request.offset);
  store_le(&out[16], request.length);
  return end(r2t_size, digests, out);
}

void store_digest(std::span<const uint8_t> bytes, std::span<uint8_t, digest_size> out) {
  store_le(out.data(), crc32c(bytes));
}

// --- receiving ---

void PduReceiver::await(Step step, size_t size) {
  step_ = step;
  wanted_ = size;
  if (step != Step::header) have_ = 0;  // the common header is the start of the header
}

bool PduReceiver::stop() {
  step_ = Step::stopped;
  return false;
}

bool PduReceiver::fail(const Fault& fault) {
  stop();
  handler_.on_fault(fault);
  return false;
}

bool PduReceiver::consume(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    if (step_ == Step::stopped) return false;
    if (step_ == Step::data) {
      const size_t part = std::min(bytes.size(), data_.size());
      std::memcpy(data_.data(), bytes.data(), part);
      bytes = bytes.subspan(part);
      if (!filled(part)) return false;
      continue;
    }
    const size_t part = std::min(bytes.size(), wanted_ - have_);
    if (step_ != Step::padding) std::memcpy(held_ + have_, bytes.data(), part);
    have_ += part;
    bytes = bytes.subspan(part);
    if (have_ == wanted_ && !advance()) return false;
  }
  return step_ != Step::stopped;
}

bool PduReceiver::filled(size_t size) {
  data_ = data_.subspan(size);
  return !data_.empty() || advance();
}

bool PduReceiver::advance() {
  switch (step_) {
    case Step::common_header: {
      Fault fault;
      const auto header = parse_header(
          std::span<const uint8_t, common_header_size>(held_, common_header_size), from_, digests_, fault);
      if (!header) return fail(fault);
      checked_ = *header;
      await(Step::header, checked_.header + (checked_.header_digest ? digest_size : 0));
      return true;
    }
    case Step::header:
      return header_complete();
    case Step::padding:
      await(Step::data, 0);
      return true;
    case Step::data:
      if (checked_.data_digest) {
        await(Step::data_digest, digest_size);
        return true;
      }
      await(Step::common_header, common_header_size);
      return handler_.on_data(true) || stop();
    case Step::data_digest:
      await(Step::common_header, common_header_size);
      return handler_.on_data(crc32c(whole_) == load_le<uint32_t>(held_)) || stop();
    case Step::stopped:
      break;
  }
  return false;
}

bool PduReceiver::header_complete() {
  const HeaderBytes header(held_, checked_.header);
  if (checked_.header_digest) {
    const auto told = load_le<uint32_t>(held_ + checked_.header);
    if (crc32c(header) != told) return fail({FatalError::header_digest, told});
  }
  whole_ = {};
  const size_t received = have_;
  if (!handler_.on_pdu(checked_, header, whole_)) return stop();
  if (checked_.data == 0) {
    await(Step::common_header, common_header_size);
    return true;
  }
  assert(whole_.size() == checked_.data);
  data_ = whole_;
  if (received < checked_.data_begins) {
    await(Step::padding, checked_.data_begins - received);
  } else {
    await(Step::data, 0);
  }
  return true;
}

}  // namespace nvsock::nvme_tcp
