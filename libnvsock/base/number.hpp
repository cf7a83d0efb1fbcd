// Numbers from text of people: all of it, in decimal, without a sign. Threads: any.
#pragma once

#include <charconv>
#include <concepts>
#include <string_view>

namespace nvsock {

// False: it is something else, or more than the type holds; `number` may be anything then.
template <std::unsigned_integral Number>
bool parse_number(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace nvsock
