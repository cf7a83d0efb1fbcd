// NVMe/TCP PDUs of either side: a stream means the same however it is cut, and data stays within its place.
//
// Input: flags (bit 0 the sender, bit 1 header digests, bit 2 data digests, the rest how it is cut), the
// stream.
#include <string>
#include <vector>

#include "libnvsock/nvme/tcp_pdu.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace nvsock::nvme_tcp;
using nvsock::fuzz::check;

struct Listener final : PduReceiver::Handler {
  bool on_pdu(const Header& checked, HeaderBytes header, std::span<uint8_t>& data) override {
    check(header.size() == checked.header, "a header is whole");
    heard.push_back('p');
    heard.append(header.begin(), header.end());
    if (checked.data > 1 << 16) return false;  // whoever takes data has a limit
    buffer.assign(checked.data, 0);
    data = buffer;
    Fault fault;
    if (checked.type == PduType::h2c_data || checked.type == PduType::c2h_data)
      return parse_data(checked, header, fault).has_value();
    return true;
  }
  bool on_data(bool digest_right) override {
    heard.push_back(digest_right ? 'd' : 'w');
    heard.append(buffer.begin(), buffer.end());
    return true;
  }
  void on_fault(const Fault& fault) override {
    heard += 'f' + std::to_string(static_cast<int>(fault.error)) + ' ' + std::to_string(fault.where);
  }

  std::vector<uint8_t> buffer;
  std::string heard;
};

std::string hear(uint8_t flags, std::span<const uint8_t> stream, size_t step) {
  Listener listener;
  PduReceiver receiver((flags & 1) != 0 ? From::controller : From::host, listener);
  receiver.set_digests({.header = (flags & 2) != 0, .data = (flags & 4) != 0});
  while (!stream.empty()) {
    const auto direct = receiver.direct();
    const size_t size = std::min(stream.size(), direct.empty() ? step : std::min(step, direct.size()));
    bool more;
    if (direct.empty()) {
      more = receiver.consume(stream.first(size));
    } else {
      std::ranges::copy(stream.first(size), direct.begin());
      more = receiver.filled(size);
    }
    if (!more) {
      check(receiver.direct().empty() && !receiver.consume(stream), "nothing is taken after the end");
      break;
    }
    stream = stream.subspan(size);
  }
  return listener.heard;
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const uint8_t> stream(data + 1, size - 1);
  check(hear(data[0], stream, 1 + (data[0] >> 3)) == hear(data[0], stream, stream.size()),
        "a stream means the same however it is cut");
  return 0;
}
