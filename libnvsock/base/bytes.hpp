// Little-endian numbers and texts in bytes from outside: one reader that cannot run over, one writer.
// Threads: any.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace nvsock {

template <typename Number>
Number load_le(const uint8_t* from) {
  Number value = 0;
  for (size_t i = 0; i < sizeof value; ++i)
    value |= static_cast<Number>(static_cast<Number>(from[i]) << (8 * i));
  return value;
}

template <typename Number>
void store_le(uint8_t* to, Number value) {
  for (size_t i = 0; i < sizeof value; ++i) to[i] = static_cast<uint8_t>(value >> (8 * i));
}

// The text of a field of fixed size, up to its NUL or its end.
inline std::string_view field_text(std::span<const uint8_t> field) {
  const auto end = std::ranges::find(field, uint8_t{0});
  return {reinterpret_cast<const char*>(field.data()), static_cast<size_t>(end - field.begin())};
}

// Takes fields off the front of a span. The first one that is not there fails the reader for good: every
// field from then on is zero or empty, and ok() says so. Check ok() before any of them is believed.
class ByteReader {
 public:
  explicit ByteReader(std::span<const uint8_t> bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  size_t left() const { return rest_.size(); }

  template <typename Number>
  Number number() {
    const auto field = bytes(sizeof(Number));
    return field.empty() ? Number{0} : load_le<Number>(field.data());
  }
  std::span<const uint8_t> bytes(size_t size) {
    if (!ok_ || size > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const auto field = rest_.first(size);
    rest_ = rest_.subspan(size);
    return field;
  }
  void skip(size_t size) { bytes(size); }

 private:
  std::span<const uint8_t> rest_;
  bool ok_ = true;
};

}  // namespace nvsock
