// Bytes from outside, as a message may show them: printable, and bounded. What a drive says is made so where
// it is read (identify_model(), probe_second_generation()); what else comes from outside, where it is shown.
// Threads: any.
#pragma once

#include <string>
#include <string_view>

namespace nvsock {

inline std::string printable(std::string_view text) {
  constexpr size_t longest = 64;
  std::string out;
  for (const char c : text.substr(0, longest)) out += (c >= 0x20 && c < 0x7f) ? c : '?';
  return text.size() > longest ? out + "..." : out;
}

inline std::string quoted(std::string_view text) {
  return "\"" + printable(text) + "\"";
}

}  // namespace nvsock
