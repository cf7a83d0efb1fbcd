// NVMe/TCP PDUs: known bytes, round trips, what is refused and how, and streams cut anywhere.
#include "libnvsock/nvme/tcp_pdu.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <sstream>
#include <string>
#include <vector>

#include "libnvsock/base/crc32c.hpp"

namespace nvsock::nvme_tcp {
namespace {

using Bytes = std::vector<uint8_t>;

std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

Bytes hex(const std::string& text) {
  Bytes bytes;
  std::istringstream digits(text);
  for (unsigned byte = 0; digits >> std::hex >> byte;) bytes.push_back(static_cast<uint8_t>(byte));
  return bytes;
}

template <typename Encode>
Bytes written(Encode encode_to) {
  uint8_t out[max_header_size];
  const size_t size = encode_to(std::span<uint8_t, max_header_size>(out));
  return {out, out + size};
}

std::optional<Header> check(const Bytes& pdu, From from, Digests digests, Fault& fault) {
  return parse_header(std::span<const uint8_t, common_header_size>(pdu.data(), common_header_size), from,
                      digests, fault);
}
Header checked(const Bytes& pdu, From from, Digests digests = {}) {
  Fault fault;
  const auto header = check(pdu, from, digests, fault);
  EXPECT_TRUE(header) << "fault at byte " << fault.where;
  return header.value_or(Header{});
}

// RFC 3720 section B.4 and the check value of the CRC catalogues.
TEST(Crc32c, known_values) {
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xE3069283u);
  EXPECT_EQ(crc32c(Bytes(32, 0)), 0x8A9136AAu);
  EXPECT_EQ(crc32c(Bytes(32, 0xff)), 0x62A8AB43u);
  Bytes rising(32);
  for (uint8_t i = 0; i < 32; ++i) rising[i] = i;
  EXPECT_EQ(crc32c(rising), 0x46DD794Eu);
  EXPECT_EQ(crc32c({}), 0u);
}

// --- bytes as Linux sends and takes them ---

TEST(NvmeTcpVector, ic_req_of_linux_with_both_digests) {
  Bytes bytes = hex("00 00 80 00 80 00 00 00 00 00 00 03 00 00 00 00");
  bytes.resize(ic_size);
  EXPECT_EQ(written([](auto out) { return encode(IcReq{.digests = {.header = true, .data = true}}, out); }),
            bytes);
  const IcReq request = parse_ic_req(bytes);
  EXPECT_EQ(request.version, 0);
  EXPECT_EQ(request.max_r2t, 1u);
  EXPECT_TRUE(request.digests.header && request.digests.data);
  EXPECT_EQ(checked(bytes, From::host).type, PduType::ic_req);
}

TEST(NvmeTcpVector, ic_resp) {
  Bytes bytes = hex("01 00 80 00 80 00 00 00 00 00 00 01 00 00 02 00");
  bytes.resize(ic_size);
  EXPECT_EQ(written([](auto out) {
              return encode(IcResp{.digests = {.header = true}, .max_h2c_data = 131072}, out);
            }),
            bytes);
  EXPECT_EQ(parse_ic_resp(bytes).max_h2c_data, 131072u);
}

// Property Get of CAP, 8 bytes wide: no data, an SGL of length 0.
TEST(NvmeTcpVector, property_get_capsule) {
  const Bytes bytes =
      hex("04 00 48 00 48 00 00 00 7f 40 34 12 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 "
          "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 5a 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 "
          "00 00 00 00 00 00 00 00");
  Command command;
  nvme::encode_property_get({.wide = true, .offset = nvme::property::cap}, command);
  EXPECT_EQ(written([&](auto out) { return encode_capsule_cmd(command, 0x1234, {}, 0, {}, out); }), bytes);
  Command parsed;
  const auto submission = nvme::parse_submission(submission_of(bytes), parsed);
  EXPECT_EQ(submission.cid, 0x1234);
  EXPECT_EQ(parsed.opcode, nvme::opcode::fabrics);
  EXPECT_EQ(parsed.nsid, nvme::fabrics_type::property_get);
  const auto property = nvme::parse_property(parsed);
  ASSERT_TRUE(property);
  EXPECT_TRUE(property->wide);
}

// With a header digest, whose place PLEN and PDO count.
TEST(NvmeTcpVector, c2h_data_with_digests) {
  const Bytes header = written([](auto out) {
    return encode(Data{.cid = 7, .offset = 4096, .length = 512, .last = true}, From::controller,
                  {.header = true, .data = true}, out);
  });
  Bytes expected = hex("07 07 18 1c 20 02 00 00 07 00 00 00 00 10 00 00 00 02 00 00 00 00 00 00");
  const uint32_t digest = crc32c(expected);
  for (int i = 0; i < 4; ++i) expected.push_back(static_cast<uint8_t>(digest >> 8 * i));
  EXPECT_EQ(header, expected);
}

TEST(NvmeTcpVector, capsule_resp_with_errno_of_ours) {
  const Bytes bytes = hex("05 00 18 00 18 00 00 00 05 00 00 00 00 00 00 00 03 00 00 00 09 00 e8 8e");
  EXPECT_EQ(written([](auto out) {
              return encode(nvme::CompletionEntry{.result = 5,
                                                  .sq_head = 3,
                                                  .cid = 9,
                                                  .status = nvsock::status::vendor_errno(116),
                                                  .do_not_retry = true},
                            {}, out);
            }),
            bytes);
  const auto completion = nvme::parse_completion(completion_of(bytes));
  EXPECT_EQ(nvsock::status::errno_of(completion.status), 116);
  EXPECT_TRUE(completion.do_not_retry);
  EXPECT_EQ(completion.result, 5u);
}

// FES at byte 8 and FEI right behind it, not aligned.
TEST(NvmeTcpVector, term_req) {
  const Bytes bytes = hex("03 00 18 00 18 00 00 00 03 00 44 33 22 11 00 00 00 00 00 00 00 00 00 00");
  EXPECT_EQ(written([](auto out) {
              return encode_term(From::controller, {FatalError::header_digest, 0x11223344}, out);
            }),
            bytes);
  EXPECT_EQ(parse_term(bytes).where, 0x11223344u);
}

TEST(NvmeTcpVector, r2t) {
  const Bytes bytes = hex("09 00 18 00 18 00 00 00 02 00 05 00 00 20 00 00 00 00 01 00 00 00 00 00");
  EXPECT_EQ(written([](auto out) {
              return encode(R2t{.cid = 2, .tag = 5, .offset = 8192, .length = 65536}, {}, out);
            }),
            bytes);
  const R2t request = parse_r2t(bytes);
  EXPECT_EQ(request.tag, 5);
  EXPECT_EQ(request.offset, 8192u);
  EXPECT_EQ(request.length, 65536u);
}

// --- round trips ---

TEST(NvmeQueue, commands_come_back_as_they_were) {
  Command command;
  command.opcode = 0xC1;
  command.nsid = 0;
  command.cdw10 = 162;
  command.cdw11 = 0x01020304;
  command.cdw12 = 512;
  command.cdw13 = 3;
  command.cdw14 = 0xffffffff;
  command.cdw15 = 1;
  uint8_t entry[nvme::submission_size];
  const nvme::DataPointer data{.kind = nvme::DataPointer::Kind::in_capsule, .offset = 0, .length = 512};
  nvme::encode(command, 77, data, entry);
  Command parsed;
  const auto submission = nvme::parse_submission(entry, parsed);
  EXPECT_EQ(submission.cid, 77);
  EXPECT_FALSE(submission.fused);
  ASSERT_TRUE(submission.data);
  EXPECT_EQ(submission.data->kind, data.kind);
  EXPECT_EQ(submission.data->length, data.length);
  EXPECT_EQ(parsed.opcode, command.opcode);
  EXPECT_EQ(parsed.cdw10, command.cdw10);
  EXPECT_EQ(parsed.cdw11, command.cdw11);
  EXPECT_EQ(parsed.cdw12, command.cdw12);
  EXPECT_EQ(parsed.cdw13, command.cdw13);
  EXPECT_EQ(parsed.cdw14, command.cdw14);
  EXPECT_EQ(parsed.cdw15, command.cdw15);
}

TEST(NvmeQueue, a_keyed_descriptor_is_no_data_pointer_of_tcp) {
  uint8_t entry[nvme::submission_size] = {};
  entry[39] = 0x40;
  Command parsed;
  EXPECT_FALSE(nvme::parse_submission(entry, parsed).data);
}

TEST(NvmeQueue, connect_comes_back_as_it_was) {
  Command command;
  nvme::encode(nvme::Connect{.queue = 1, .queue_size = 128, .keep_alive_ms = 15000}, command);
  const nvme::Connect connect = nvme::parse_connect(command);
  EXPECT_EQ(connect.queue, 1);
  EXPECT_EQ(connect.queue_size, 128);
  EXPECT_EQ(connect.keep_alive_ms, 15000u);

  uint8_t bytes[nvme::connect_data_size];
  nvme::encode(
      nvme::ConnectData{.host_id = {1, 2, 3}, .controller = 5, .subsystem = "nqn.a", .host = "nqn.b"}, bytes);
  const nvme::ConnectData data = nvme::parse_connect_data(bytes);
  EXPECT_EQ(data.host_id[2], 3);
  EXPECT_EQ(data.controller, 5);
  EXPECT_EQ(data.subsystem, "nqn.a");
  EXPECT_EQ(data.host, "nqn.b");
}

TEST(NvmeQueue, a_name_without_end_is_none) {
  uint8_t bytes[nvme::connect_data_size];
  std::memset(bytes, 'a', sizeof bytes);
  const nvme::ConnectData data = nvme::parse_connect_data(bytes);
  EXPECT_EQ(data.subsystem, "");
  EXPECT_EQ(data.host, "");
}

TEST(NvmeQueue, a_property_of_16_bytes_does_not_exist) {
  Command command;
  nvme::encode_property_set({.offset = nvme::property::cc, .value = 1}, command);
  EXPECT_EQ(nvme::parse_property(command)->value, 1u);
  command.cdw10 = 2;
  EXPECT_FALSE(nvme::parse_property(command));
}

// --- what is refused, and which byte is named ---

struct Wrong {
  const char* what;
  Bytes header;
  uint32_t where;
  Digests digests = {};
};

TEST(NvmeTcpHeader, malformed_ones_are_refused_with_the_byte_that_is_wrong) {
  const Digests header{.header = true}, data{.data = true};
  const Wrong all[] = {
      {"unknown type", hex("08 00 48 00 48 00 00 00"), 0},
      {"of the controller", hex("05 00 18 00 18 00 00 00"), 0},
      {"HLEN of another type", hex("04 00 18 00 48 00 00 00"), 2},
      {"PLEN below the header", hex("04 00 48 00 47 00 00 00"), 4},
      {"PLEN below the digest", hex("04 01 48 00 4a 00 00 00"), 4, header},
      {"header digest missing", hex("04 00 48 00 4c 00 00 00"), 1, header},
      {"header digest not agreed", hex("04 01 48 00 48 00 00 00"), 1},
      {"data digest missing", hex("04 00 48 48 50 00 00 00"), 1, data},
      {"PLEN without room for data and digest", hex("04 02 48 48 4c 00 00 00"), 4, data},
      {"PDO inside the header", hex("04 00 48 44 50 00 00 00"), 3},
      {"PDO not aligned", hex("04 00 48 4a 50 00 00 00"), 3},
      {"PDO beyond the end", hex("04 00 48 50 50 00 00 00"), 4},
      {"H2CData without data", hex("06 00 18 18 18 00 00 00"), 4},
      {"ICReq with data", hex("00 00 80 00 81 00 00 00"), 4},
      {"TermReq too long", hex("02 00 18 00 99 00 00 00"), 4},
  };
  for (const Wrong& wrong : all) {
    SCOPED_TRACE(wrong.what);
    Fault fault;
    EXPECT_FALSE(check(wrong.header, From::host, wrong.digests, fault));
    EXPECT_EQ(fault.error, FatalError::invalid_header_field);
    EXPECT_EQ(fault.where, wrong.where);
  }
}

TEST(NvmeTcpHeader, data_may_stand_apart_from_the_header) {
  const Header header = checked(hex("04 00 48 80 88 00 00 00"), From::host);
  EXPECT_EQ(header.data_begins, 128u);
  EXPECT_EQ(header.data, 8u);
}

// --- the receiver ---

// What came, as text: "TYPE header-bytes data" a PDU.
struct Recorder final : PduReceiver::Handler {
  bool on_pdu(const Header& checked, HeaderBytes header, std::span<uint8_t>& data) override {
    story << int(checked.type) << ' ' << header.size() << ' ';
    buffer.assign(checked.data, 0);
    data = buffer;
    if (checked.data == 0) story << ";";
    if (checked.type == PduType::ic_req) receiver->set_digests(parse_ic_req(header).digests);
    return checked.type != PduType::h2c_term;
  }
  bool on_data(bool right) override {
    story << std::string(buffer.begin(), buffer.end()) << (right ? ";" : "!;");
    return true;
  }
  void on_fault(const Fault& fault) override {
    story << "fault " << int(fault.error) << ' ' << fault.where << ';';
  }

  PduReceiver* receiver = nullptr;
  std::ostringstream story;
  Bytes buffer;
};

void append(Bytes& stream, const Bytes& bytes) {
  stream.insert(stream.end(), bytes.begin(), bytes.end());
}

void append_data(Bytes& stream, std::string_view text, Digests digests) {
  append(stream, {text.begin(), text.end()});
  if (!digests.data) return;
  uint8_t digest[digest_size];
  store_digest(bytes_of(text), digest);
  stream.insert(stream.end(), digest, digest + digest_size);
}

Bytes conversation(Digests digests) {
  Bytes stream = written([&](auto out) { return encode(IcReq{.digests = digests}, out); });
  Command command;
  command.opcode = 0xC1;
  append(stream, written([&](auto out) { return encode_capsule_cmd(command, 1, {}, 5, digests, out); }));
  append_data(stream, "hello", digests);
  append(stream, written([&](auto out) { return encode_capsule_cmd(command, 2, {}, 0, digests, out); }));
  append(stream, written([&](auto out) {
           return encode(Data{.cid = 2, .tag = 1, .length = 9, .last = true}, From::host, digests, out);
         }));
  append_data(stream, "123456789", digests);
  return stream;
}

constexpr char heard[] = "0 128 ;4 72 hello;4 72 ;6 24 123456789;";

std::string receive(const Bytes& stream, size_t step, bool direct) {
  Recorder recorder;
  PduReceiver receiver(From::host, recorder);
  recorder.receiver = &receiver;
  std::span<const uint8_t> rest(stream);
  while (!rest.empty()) {
    size_t size = std::min(step, rest.size());
    if (const auto into = receiver.direct(); direct && !into.empty()) {
      size = std::min(size, into.size());
      std::copy_n(rest.begin(), size, into.begin());
      if (!receiver.filled(size)) break;
    } else {
      const Bytes exact(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(size));
      if (!receiver.consume(exact)) break;
    }
    rest = rest.subspan(size);
  }
  return recorder.story.str();
}

TEST(PduReceiver, hears_the_same_however_the_stream_is_cut) {
  for (const Digests digests : {Digests{}, Digests{true, false}, Digests{false, true}, Digests{true, true}}) {
    const Bytes stream = conversation(digests);
    for (size_t step = 1; step <= stream.size(); ++step) {
      EXPECT_EQ(receive(stream, step, false), heard) << "in steps of " << step;
      EXPECT_EQ(receive(stream, step, true), heard) << "direct, in steps of " << step;
    }
  }
}

TEST(PduReceiver, wrong_header_digest_is_fatal_and_told_with_the_digest_received) {
  Bytes stream = conversation({.header = true});
  stream[ic_size + 20] ^= 1;
  const auto told = load_le<uint32_t>(&stream[ic_size + capsule_cmd_size]);
  EXPECT_EQ(receive(stream, 7, false), "0 128 ;fault 3 " + std::to_string(told) + ";");
}

TEST(PduReceiver, wrong_data_digest_is_told_and_the_stream_goes_on) {
  Bytes stream = conversation({.data = true});
  stream[ic_size + capsule_cmd_size] = 'j';
  EXPECT_EQ(receive(stream, 7, false), "0 128 ;4 72 jello!;4 72 ;6 24 123456789;");
}

TEST(PduReceiver, padding_is_skipped) {
  Command command;
  Bytes pdu = written([&](auto out) { return encode_capsule_cmd(command, 1, {}, 5, {}, out); });
  pdu[3] = 128;
  pdu[4] = 133;
  pdu.resize(128, 0xee);
  append_data(pdu, "hello", {});
  for (size_t step = 1; step <= pdu.size(); ++step) EXPECT_EQ(receive(pdu, step, true), "4 72 hello;");
}

TEST(PduReceiver, nothing_is_taken_after_the_end) {
  Bytes stream = written([](auto out) { return encode_term(From::host, {FatalError::sequence, 0}, out); });
  append(stream, conversation({}));
  EXPECT_EQ(receive(stream, 1000, false), "2 24 ;");
}

TEST(NvmeTcpData, the_length_told_twice_must_agree) {
  Bytes pdu = written([](auto out) { return encode(Data{.length = 8}, From::host, {}, out); });
  const Header header = checked(pdu, From::host);
  Fault fault;
  EXPECT_TRUE(parse_data(header, pdu, fault));
  pdu[16] = 9;
  EXPECT_FALSE(parse_data(header, pdu, fault));
  EXPECT_EQ(fault.where, offset::data_length);
}

}  // namespace
}  // namespace nvsock::nvme_tcp
