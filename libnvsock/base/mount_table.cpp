#include "libnvsock/base/mount_table.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace nvsock {
namespace {

// Undoes the octal escapes of /proc/self/mountinfo (space, tab, newline, backslash).
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::vector<MountEntry> mount_table() {
  std::vector<MountEntry> table;
  std::ifstream file("/proc/self/mountinfo");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    MountEntry& entry = table.emplace_back();
    std::string device, root, place, field;
    fields >> entry.id >> entry.parent >> device >> root >> place;
    while (fields >> field && field != "-") continue;
    fields >> entry.type;
    entry.place = unescaped(place);
  }
  return table;
}

}  // namespace nvsock
