// Session requests: what any host may attach with.
#include <vector>

#include "libnvsock/relay/v2.hpp"
#include "tests/fuzz/fuzz.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nvsock::relay_v2;
  using nvsock::fuzz::check;
  const auto first = parse_session_request({data, size});
  if (!first) return 0;
  std::vector<uint8_t> bytes(session_request_size);
  encode(*first, bytes);
  const auto second = parse_session_request(bytes);
  check(second && second->resume == first->resume && second->version == first->version &&
            second->features == first->features && second->epoch == first->epoch &&
            second->key.handle == first->key.handle && equal_secrets(second->key.secret, first->key.secret),
        "an encoded request comes back as it was");
  return 0;
}
