// NVMe/TCP: the PDUs that carry commands, completions and data over a TCP connection. Bytes, no I/O.
//
// Source: NVM Express TCP Transport Specification 1.0, sections 3.3 (PDUs) and 3.5 (errors). A connection is
// one queue. It starts with ICReq and ICResp; then a command travels in a CapsuleCmd, with its data behind it
// (in capsule) or in H2CData PDUs that the controller asked for with R2T; data for the host comes in C2HData
// PDUs, the completion in a CapsuleResp. Both ends share this file.
//
//   common header (8 bytes: type, flags, HLEN, PDO, PLEN), rest of the header up to HLEN, header digest,
//   padding up to PDO, data, data digest; PLEN is the length of it all
//
// Parsers check everything before they return anything, and allocate nothing. Encoders write the header and
// its digest; data and data digest are sent behind it by the caller (store_digest()). Threads: any.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "libnvsock/nvme/queue_entry.hpp"

namespace nvsock::nvme_tcp {

enum class PduType : uint8_t {
  ic_req = 0,
  ic_resp = 1,
  h2c_term = 2,
  c2h_term = 3,
  capsule_cmd = 4,
  capsule_resp = 5,
  h2c_data = 6,
  c2h_data = 7,
  r2t = 9,
};
enum class From { host, controller };

inline constexpr size_t common_header_size = 8;
inline constexpr size_t ic_size = 128;
inline constexpr size_t term_size = 24;  // without the copy of the header in error
inline constexpr size_t max_term_size = 152;
inline constexpr size_t capsule_cmd_size = common_header_size + nvme::submission_size;
inline constexpr size_t capsule_resp_size = common_header_size + nvme::completion_size;
inline constexpr size_t data_size = 24;
inline constexpr size_t r2t_size = 24;
inline constexpr uint32_t digest_size = 4;
inline constexpr size_t max_header_size = ic_size;  // of any PDU, header digest included

inline constexpr uint32_t admin_capsule_data = 8192;  // in-capsule data every controller takes, section 3.2.1

// What was negotiated: the digests that both directions carry.
struct Digests {
  bool header = false;
  bool data = false;
};

// Section 3.5: why a connection is ended with a TermReq. `where` is the byte of the header that is wrong, or
// the digest that was received.
enum class FatalError : uint16_t {
  invalid_header_field = 1,
  sequence = 2,
  header_digest = 3,
  out_of_range = 4,
  limit_exceeded = 5,
  unsupported_parameter = 6,
};
struct Fault {
  FatalError error{};
  uint32_t where = 0;
};
namespace offset {  // of header fields, for Fault::where
inline constexpr uint32_t type = 0, flags = 1, hlen = 2, pdo = 3, plen = 4, pfv = 8, hpda = 10, cccid = 8,
                          ttag = 10, data_offset = 12, data_length = 16;
}

// The common header, checked: type, direction, lengths, and flags against what was negotiated.
struct Header {
  PduType type{};
  bool last = false;     // of H2CData and C2HData
  bool success = false;  // of C2HData: there will be no CapsuleResp
  uint32_t header = 0;   // bytes, digest not included
  bool header_digest = false;
  uint32_t data_begins = 0;  // from the start of the PDU; after header, digest and padding
  uint32_t data = 0;         // bytes, digest not included
  bool data_digest = false;
};
std::optional<Header> parse_header(std::span<const uint8_t, common_header_size> bytes, From from,
                                   Digests digests, Fault& fault);

// The bodies. Parsers take the whole header of that type, HLEN bytes, after parse_header().
using HeaderBytes = std::span<const uint8_t>;

struct IcReq {
  uint16_t version = 0;   // PFV; 0 is the only one
  uint8_t alignment = 0;  // HPDA: the host wants data at multiples of (this + 1) * 4 bytes
  Digests digests;
  uint32_t max_r2t = 1;  // at once, a command; not 0's based
};
IcReq parse_ic_req(HeaderBytes header);
size_t encode(const IcReq& request, std::span<uint8_t, max_header_size> out);

struct IcResp {
  uint16_t version = 0;
  uint8_t alignment = 0;  // CPDA
  Digests digests;
  uint32_t max_h2c_data = 0;  // MAXH2CDATA: bytes in one H2CData
};
IcResp parse_ic_resp(HeaderBytes header);
size_t encode(const IcResp& response, std::span<uint8_t, max_header_size> out);

// TermReq of either side. Without the header of the PDU in error, which is optional.
Fault parse_term(HeaderBytes header);
size_t encode_term(From from, const Fault& fault, std::span<uint8_t, max_header_size> out);

// Its entry: parse_submission(), parse_completion() of queue_entry.hpp.
inline std::span<const uint8_t, nvme::submission_size> submission_of(HeaderBytes header) {
  return header.subspan<common_header_size, nvme::submission_size>();
}
inline std::span<const uint8_t, nvme::completion_size> completion_of(HeaderBytes header) {
  return header.subspan<common_header_size, nvme::completion_size>();
}
// `in_capsule`: bytes of data that follow, padding none.
size_t encode_capsule_cmd(const Command& command, uint16_t cid, const nvme::DataPointer& data,
                          uint32_t in_capsule, Digests digests, std::span<uint8_t, max_header_size> out);
size_t encode(const nvme::CompletionEntry& completion, Digests digests,
              std::span<uint8_t, max_header_size> out);

// H2CData and C2HData.
struct Data {
  uint16_t cid = 0;
  uint16_t tag = 0;  // TTAG, of the R2T; 0 in C2HData
  uint32_t offset = 0;
  uint32_t length = 0;  // the same as Header::data, or the PDU is wrong
  bool last = false;
  bool success = false;
};
// Nothing: the length is not that of the PDU.
std::optional<Data> parse_data(const Header& checked, HeaderBytes header, Fault& fault);
size_t encode(const Data& data, From from, Digests digests, std::span<uint8_t, max_header_size> out);

struct R2t {
  uint16_t cid = 0;
  uint16_t tag = 0;
  uint32_t offset = 0;
  uint32_t length = 0;
};
R2t parse_r2t(HeaderBytes header);
size_t encode(const R2t& request, Digests digests, std::span<uint8_t, max_header_size> out);

// The digest of `bytes` as it stands on the wire.
void store_digest(std::span<const uint8_t> bytes, std::span<uint8_t, digest_size> out);

// Takes PDUs out of a stream of bytes, however it is cut. A header is held here, data goes straight to
// where the handler wants it. Bytes come in with consume(), or first with direct() and filled(): then data
// is received where it belongs, without a copy.
class PduReceiver {
 public:
  // Each returns false to stop: the receiver takes nothing more.
  class Handler {
   public:
    // The header is complete and its digest right. `data`: where the data goes, to be set to checked.data
    // bytes that stay until on_data(), if that is not 0.
    virtual bool on_pdu(const Header& checked, HeaderBytes header, std::span<uint8_t>& data) = 0;
    // All data of the PDU is there.
    virtual bool on_data(bool digest_right) = 0;
    virtual void on_fault(const Fault& fault) = 0;  // and stops

   protected:
    ~Handler() = default;
  };

  // `from`: whose PDUs these are. The handler must outlive the receiver.
  PduReceiver(From from, Handler& handler) : from_(from), handler_(handler) {}

  // From the next PDU on.
  void set_digests(Digests digests) { digests_ = digests; }

  bool consume(std::span<const uint8_t> bytes);  // false: stopped
  // Data that is awaited next; empty: anything else is, for consume().
  std::span<uint8_t> direct() const { return step_ == Step::data ? data_ : std::span<uint8_t>(); }
  bool filled(size_t size);  // so many bytes were put at the start of direct()

 private:
  enum class Step { common_header, header, padding, data, data_digest, stopped };

  bool advance();  // what is next now that `wanted_` bytes are there
  bool header_complete();
  bool stop();
  bool fail(const Fault& fault);
  void await(Step step, size_t size);

  const From from_;
  Handler& handler_;
  Digests digests_;
  Step step_ = Step::common_header;
  size_t have_ = 0;  // bytes in held_
  size_t wanted_ = common_header_size;
  uint8_t held_[max_header_size];  // header, or data digest
  Header checked_;
  std::span<uint8_t> data_;   // not received yet
  std::span<uint8_t> whole_;  // all of it, for the digest
};

}  // namespace nvsock::nvme_tcp
