// What the fuzz targets share. A target is one file that defines LLVMFuzzerTestOneInput; libFuzzer drives it,
// or replay.cpp. It aborts on what must not be, whatever the bytes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>

#include "libnvsock/base/bytes.hpp"

extern "C" __attribute__((visibility("default"))) int LLVMFuzzerTestOneInput(const uint8_t* data,
                                                                             size_t size);

namespace nvsock::fuzz {

inline void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

// Without a loop that coverage would be told of byte by byte.
inline bool same(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}
inline void fill(std::span<uint8_t> bytes, uint8_t value) {
  if (!bytes.empty()) std::memset(bytes.data(), value, bytes.size());
}

// The bytes of a run as a list of decisions; when they are used up every further one is zero.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(data, size) {}

  bool empty() const { return rest_.empty(); }
  template <typename Number>
  Number number() {
    uint8_t field[sizeof(Number)] = {};
    std::ranges::copy(bytes(sizeof field), field);
    return load_le<Number>(field);
  }
  // A number below `bound`, from one byte. REQUIRES: 0 < bound <= 256.
  size_t below(size_t bound) { return number<uint8_t>() % bound; }
  std::span<const uint8_t> bytes(size_t size) {
    const auto taken = rest_.first(std::min(size, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  std::string_view text(size_t size) {
    const auto taken = bytes(size);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  std::span<const uint8_t> rest() { return bytes(rest_.size()); }

 private:
  std::span<const uint8_t> rest_;
};

}  // namespace nvsock::fuzz
