// Capability pages: what a drive of any kind may answer.
#include <vector>

#include "libnvsock/relay/v2.hpp"
#include "tests/fuzz/fuzz.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nvsock::relay_v2;
  using nvsock::fuzz::check;
  auto first = parse_capabilities({data, size});
  if (!first) return 0;
  check(first->max_batch >= min_batch && first->max_batch <= max_batch, "buffers are of a sane size");
  check(first->tx_window > 0 && first->rx_window > 0 && first->lease_s > 0, "windows and lease are not 0");
  first->vendor = first->vendor.substr(0, 71);  // the encoder ends it with a zero
  std::vector<uint8_t> once(capability_page_size), twice(capability_page_size);
  encode(*first, once);
  const auto second = parse_capabilities(once);
  check(second.has_value(), "an encoded page parses");
  encode(*second, twice);
  check(once == twice, "an encoded page comes back as it was");
  return 0;
}
