// What happened in a run, for people, and what must not have happened.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <string>
#include <vector>

#include "libnvsock/base/clock.hpp"

namespace nvsock::sim {

class Story {
 public:
  Story(const Clock& clock, bool told) : clock_(clock), told_(told) {}

  __attribute__((format(printf, 2, 3))) void tell(const char* format, ...) const {
    if (!told_) return;
    va_list arguments;
    va_start(arguments, format);
    std::puts(line(format, arguments).c_str());
    va_end(arguments);
  }
  // Something that must not be. One kind of it in a run is enough to read.
  __attribute__((format(printf, 2, 3))) void violation(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const std::string text = line(format, arguments);
    va_end(arguments);
    if (told_) std::printf("VIOLATION %s\n", text.c_str());
    if (violations_.size() < most) violations_.push_back(text);
  }
  const std::vector<std::string>& violations() const { return violations_; }

 private:
  static constexpr size_t most = 20;

  std::string line(const char* format, va_list arguments) const {
    char text[400];
    const double seconds = std::chrono::duration<double>(clock_.now().time_since_epoch()).count();
    const int stamp = std::snprintf(text, sizeof text, "%12.6f  ", seconds);
    std::vsnprintf(text + stamp, sizeof text - static_cast<size_t>(stamp), format, arguments);
    return text;
  }

  const Clock& clock_;
  const bool told_;
  std::vector<std::string> violations_;
};

}  // namespace nvsock::sim
