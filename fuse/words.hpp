// Lines of words that people write: the control file's commands, access rules. Threads: any.
#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

namespace csdfs {

using Words = std::vector<std::string_view>;

// What blanks separate. The words live as long as the line.
inline Words words_of(std::string_view line) {
  constexpr std::string_view blanks = " \t\r";
  Words words;
  while (true) {
    line.remove_prefix(std::min(line.find_first_not_of(blanks), line.size()));
    if (line.empty()) return words;
    const std::string_view word = line.substr(0, line.find_first_of(blanks));
    words.push_back(word);
    line.remove_prefix(word.size());
  }
}

}  // namespace csdfs
