// Device URIs as text: BASE?key=value&key=value, and what there is to say about a wrong one. Allocates
// nothing but messages. Threads: any.
#pragma once

#include <cerrno>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "libnvsock/base/number.hpp"
#include "libnvsock/base/quoted.hpp"
#include "libnvsock/base/result.hpp"

namespace nvsock {

// What stands before `mark`, which is dropped with it; all of it if there is no mark.
inline std::string_view take_until(std::string_view& text, char mark) {
  const size_t at = text.find(mark);
  const std::string_view taken = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view() : text.substr(at + 1);
  return taken;
}

struct UriOption {
  std::string_view text;  // "key=value", as given
  std::string_view key;
  std::string_view value;  // empty also where there is no '='
};

// The options of a URI, one after the other. The views live as long as the text.
class UriReader {
 public:
  explicit UriReader(std::string_view uri) : rest_(uri), base_(take_until(rest_, '?')) {}

  std::string_view base() const { return base_; }  // before the question mark
  std::optional<UriOption> next() {
    if (rest_.empty()) return std::nullopt;
    UriOption option{.text = take_until(rest_, '&'), .key = {}, .value = {}};
    option.value = option.text;
    option.key = take_until(option.value, '=');
    return option;
  }

 private:
  std::string_view rest_;
  std::string_view base_;
};

// An option as people are told of it: the parser that takes it keeps a table of these.
struct KnownOption {
  std::string_view form;  // "relays=N"
  std::string_view what;  // "how many relays it has (4)"
};

// The option is none of these.
inline Error unknown_option(const UriOption& option, std::span<const KnownOption> known) {
  std::string text = "unknown option " + quoted(option.text) + " (";
  for (const KnownOption& one : known) {
    if (&one != known.data()) text += ", ";
    text += one.form;
  }
  return {EINVAL, text + ")"};
}

// The value as a number of 1 to `most`. EINVAL with a sentence.
inline Result<unsigned> parse_in_range(const UriOption& option, unsigned most) {
  unsigned number = 0;
  if (parse_number(option.value, number) && number >= 1 && number <= most) return number;
  return Error{EINVAL, std::string(option.key) + "=" + printable(option.value) + " is out of range (1-" +
                           std::to_string(most) + ")"};
}

}  // namespace nvsock
