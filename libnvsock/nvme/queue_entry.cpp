#include "libnvsock/nvme/queue_entry.hpp"

#include <algorithm>

namespace nvsock::nvme {
namespace {

// Offsets in a submission entry, figure 87.
constexpr size_t flags_offset = 1;
constexpr size_t cid_offset = 2;
constexpr size_t nsid_offset = 4;
constexpr size_t data_offset = 24;
constexpr size_t cdw10_offset = 40;
constexpr uint8_t psdt_sgl = 1 << 6;
constexpr uint8_t fuse_mask = 3;

constexpr uint16_t status_shift = 1;  // the phase tag, always 0 over Fabrics
constexpr uint16_t status_mask = 0x7ff;
constexpr uint16_t do_not_retry_flag = 1 << 15;

std::string_view nqn_of(std::span<const uint8_t> field) {
  const auto end = std::ranges::find(field, 0);
  const auto size = static_cast<size_t>(end - field.begin());
  if (size > max_nqn) return {};
  return {reinterpret_cast<const char*>(field.data()), size};
}

}  // namespace

Direction direction_of(const Command& command) {
  if (command.opcode != opcode::fabrics) return static_cast<Direction>(command.opcode & 3);
  return command.nsid == fabrics_type::connect ? Direction::to_controller : Direction::none;
}

void encode(const Command& command, uint16_t cid, const DataPointer& data,
            std::span<uint8_t, submission_size> out) {
  std::ranges::fill(out, 0);
  out[0] = command.opcode;
  out[flags_offset] = psdt_sgl;
  store_le(&out[cid_offset], cid);
  store_le(&out[nsid_offset], command.nsid);
  store_le(&out[data_offset], data.offset);
  store_le(&out[data_offset + 8], data.length);
  out[data_offset + 15] = static_cast<uint8_t>(data.kind);
  size_t at = cdw10_offset;
  for (const uint32_t word :
       {command.cdw10, command.cdw11, command.cdw12, command.cdw13, command.cdw14, command.cdw15}) {
    store_le(&out[at], word);
    at += sizeof word;
  }
}

Submission parse_submission(std::span<const uint8_t, submission_size> entry, Command& command) {
  command.opcode = entry[0];
  command.nsid = load_le<uint32_t>(&entry[nsid_offset]);
  size_t at = cdw10_offset;
  for (uint32_t* word :
       {&command.cdw10, &command.cdw11, &command.cdw12, &command.cdw13, &command.cdw14, &command.cdw15}) {
    *word = load_le<uint32_t>(&entry[at]);
    at += sizeof *word;
  }
  Submission submission{.cid = load_le<uint16_t>(&entry[cid_offset]),
                        .fused = (entry[flags_offset] & fuse_mask) != 0};
  const auto kind = static_cast<DataPointer::Kind>(entry[data_offset + 15]);
  if (kind == DataPointer::Kind::in_capsule || kind == DataPointer::Kind::transport) {
    submission.data = {.kind = kind,
                       .offset = load_le<uint64_t>(&entry[data_offset]),
                       .length = load_le<uint32_t>(&entry[data_offset + 8])};
  } else {
    submission.data.reset();
  }
  return submission;
}

void encode(const CompletionEntry& completion, std::span<uint8_t, completion_size> out) {
  std::ranges::fill(out, 0);
  store_le(&out[0], completion.result);
  store_le(&out[8], completion.sq_head);
  store_le(&out[12], completion.cid);
  store_le(&out[14], static_cast<uint16_t>(completion.status << status_shift |
                                           (completion.do_not_retry ? do_not_retry_flag : 0)));
}

CompletionEntry parse_completion(std::span<const uint8_t, completion_size> entry) {
  const auto status = load_le<uint16_t>(&entry[14]);
  return {.result = load_le<uint64_t>(&entry[0]),
          .sq_head = load_le<uint16_t>(&entry[8]),
          .cid = load_le<uint16_t>(&entry[12]),
          .status = static_cast<uint16_t>(status >> status_shift & status_mask),
          .do_not_retry = (status & do_not_retry_flag) != 0};
}

void encode(const Connect& connect, Command& command) {
  command.opcode = opcode::fabrics;
  command.nsid = fabrics_type::connect;
  command.cdw10 = connect.record_format | uint32_t{connect.queue} << 16;
  command.cdw11 = static_cast<uint16_t>(connect.queue_size - 1);
  command.cdw12 = connect.keep_alive_ms;
}

Connect parse_connect(const Command& command) {
  // 0's based; the one size that does not fit is told as 0, which nobody may accept.
  return {.record_format = static_cast<uint16_t>(command.cdw10),
          .queue = static_cast<uint16_t>(command.cdw10 >> 16),
          .queue_size = static_cast<uint16_t>(command.cdw11 + 1),
          .keep_alive_ms = command.cdw12};
}

void encode(const ConnectData& data, std::span<uint8_t, connect_data_size> out) {
  std::ranges::fill(out, 0);
  std::ranges::copy(data.host_id, out.begin());
  store_le(&out[connect_offset::controller], data.controller);
  std::ranges::copy(data.subsystem.substr(0, max_nqn), out.begin() + connect_offset::subsystem);
  std::ranges::copy(data.host.substr(0, max_nqn), out.begin() + connect_offset::host);
}

ConnectData parse_connect_data(std::span<const uint8_t, connect_data_size> data) {
  ConnectData parsed;
  std::ranges::copy(data.first<16>(), parsed.host_id.begin());
  parsed.controller = load_le<uint16_t>(&data[connect_offset::controller]);
  parsed.subsystem = nqn_of(data.subspan<connect_offset::subsystem, nqn_size>());
  parsed.host = nqn_of(data.subspan<connect_offset::host, nqn_size>());
  return parsed;
}

void encode_property_get(const Property& property, Command& command) {
  command.opcode = opcode::fabrics;
  command.nsid = fabrics_type::property_get;
  command.cdw10 = property.wide ? 1 : 0;
  command.cdw11 = property.offset;
}

void encode_property_set(const Property& property, Command& command) {
  encode_property_get(property, command);
  command.nsid = fabrics_type::property_set;
  command.cdw12 = static_cast<uint32_t>(property.value);
  command.cdw13 = static_cast<uint32_t>(property.value >> 32);
}

std::optional<Property> parse_property(const Command& command) {
  const uint32_t size = command.cdw10 & 7;
  if (size > 1) return std::nullopt;
  return Property{
      .wide = size == 1, .offset = command.cdw11, .value = command.cdw12 | uint64_t{command.cdw13} << 32};
}

}  // namespace nvsock::nvme
