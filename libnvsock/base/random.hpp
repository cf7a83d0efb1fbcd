// Chance that comes from a seed: SplitMix64, the same on every machine and library. Threads: one at a
// time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nvsock {

constexpr uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(mix(seed + 0x632be59bd9b4e019)) {}

  uint64_t next() { return mix(state_ += 0x9e3779b97f4a7c15); }
  uint64_t below(uint64_t bound) { return next() % bound; }  // REQUIRES: bound > 0
  uint64_t between(uint64_t least, uint64_t most) { return least + below(most - least + 1); }
  bool chance(unsigned per_mille) { return below(1000) < per_mille; }
  // Small values as likely as large ones: the number of bits is what is drawn.
  uint64_t any_size(uint64_t most) {
    uint64_t bound = 2;
    while (bound <= most && below(16) != 0) bound *= 2;
    return below((bound < most ? bound : most) + 1);
  }
  template <typename T, size_t Size>
  T one_of(const T (&choices)[Size]) {
    return choices[below(Size)];
  }

 private:
  uint64_t state_;
};

}  // namespace nvsock
