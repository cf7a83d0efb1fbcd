// Bytes that show where they belong: each is a function of its stream and its place in it.
#pragma once

#include <cstring>
#include <span>

#include "tests/sim/random.hpp"

namespace nvsock::sim {

class Pattern {
 public:
  explicit Pattern(uint64_t seed = 0) : seed_(mix(seed)) {}

  void fill(uint64_t offset, std::span<uint8_t> out) const {
    each(offset, out.size(), [&](size_t at, const uint8_t* bytes, size_t size) {
      std::memcpy(out.data() + at, bytes, size);
      return true;
    });
  }
  // How many bytes from the front are those of the pattern.
  size_t matches(uint64_t offset, std::span<const uint8_t> bytes) const {
    size_t good = 0;
    each(offset, bytes.size(), [&](size_t at, const uint8_t* expected, size_t size) {
      if (std::memcmp(bytes.data() + at, expected, size) == 0) {
        good += size;
        return true;
      }
      for (size_t i = 0; bytes[at + i] == expected[i]; ++i) ++good;
      return false;
    });
    return good;
  }

 private:
  template <typename Visit>
  void each(uint64_t offset, size_t size, Visit visit) const {
    for (size_t at = 0; at < size;) {
      const uint64_t word = mix(seed_ + (offset + at) / 8);
      uint8_t bytes[8];
      std::memcpy(bytes, &word, 8);
      const size_t skip = (offset + at) % 8;
      const size_t part = size - at < 8 - skip ? size - at : 8 - skip;
      if (!visit(at, bytes + skip, part)) return;
      at += part;
    }
  }

  uint64_t seed_;
};

}  // namespace nvsock::sim
