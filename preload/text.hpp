// A line of text in a fixed buffer: snprintf() is neither async-signal-safe nor free of allocation.
//
// Threads: any, signal handlers too; an object belongs to one.
#pragma once

#include <string.h>

#include <cstddef>
#include <string_view>

namespace nvsock::preload {

// Always NUL-terminated. What does not fit is dropped, and complete() tells.
template <std::size_t N>
class Text {
 public:
  Text& operator<<(std::string_view more) {
    const std::size_t room = N - 1 - size_;
    const std::size_t n = more.size() <= room ? more.size() : room;
    memcpy(data_ + size_, more.data(), n);
    size_ += n;
    data_[size_] = '\0';
    complete_ &= n == more.size();
    return *this;
  }

  Text& operator<<(long value) {
    char digits[24];
    char* first = digits + sizeof digits;
    unsigned long rest =
        value < 0 ? 0ul - static_cast<unsigned long>(value) : static_cast<unsigned long>(value);
    do {
      *--first = static_cast<char>('0' + rest % 10);
    } while ((rest /= 10) != 0);
    if (value < 0) *--first = '-';
    return *this << std::string_view(first, static_cast<std::size_t>(digits + sizeof digits - first));
  }
  Text& operator<<(int value) { return *this << static_cast<long>(value); }
  Text& operator<<(unsigned short value) { return *this << static_cast<long>(value); }

  const char* c_str() const { return data_; }
  std::string_view view() const { return {data_, size_}; }
  bool complete() const { return complete_; }

 private:
  char data_[N] = {};
  std::size_t size_ = 0;
  bool complete_ = true;
};

}  // namespace nvsock::preload
