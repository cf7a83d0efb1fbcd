#include "fuse/socket_options.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "libnvsock/socket/option_table.hpp"

namespace csdfs {
namespace {

using nvsock::OptionType;
using nvsock::SocketOption;

constexpr char congestion_control[size_of(OptionType::text)] = "cubic";  // Linux's default

}  // namespace

int SocketOptions::set(const nvsock_option& option) {
  const SocketOption* kind = nvsock::find_socket_option(option.level, option.name);
  if (kind == nullptr) return ENOPROTOOPT;
  const uint32_t size = size_of(kind->type);
  // Those of IP may be given in one byte (Linux: do_ip_setsockopt).
  const uint32_t least = kind->type == OptionType::text ? 0 : option.level == IPPROTO_IP ? 1 : size;
  if (option.length > NVSOCK_OPTION_MAX || option.length < least) return EINVAL;

  Entry entry{option.level, option.name, size, {}};
  std::memcpy(entry.value, option.value, std::min(size, option.length));
  if (kind->type == OptionType::integer || kind->type == OptionType::flag) {
    int32_t value = 0;
    std::memcpy(&value, entry.value, sizeof value);
    if (kind->type == OptionType::flag) value = value != 0;
    if (nvsock::is_told_doubled(option.level, option.name)) value = std::clamp(value, 1152, 1 << 22) * 2;
    std::memcpy(entry.value, &value, sizeof value);
  } else if (kind->type == OptionType::timeval) {
    timeval value{};
    std::memcpy(&value, entry.value, sizeof value);
    if (value.tv_usec < 0 || value.tv_usec >= 1'000'000) return EDOM;
    if (value.tv_sec < 0) value = {};
    std::memcpy(entry.value, &value, sizeof value);
  }
  std::erase_if(set_, [&](const Entry& old) { return old.level == option.level && old.name == option.name; });
  set_.push_back(entry);
  return 0;
}

int SocketOptions::get(nvsock_option& option) const {
  const SocketOption* kind = nvsock::find_socket_option(option.level, option.name);
  if (kind == nullptr) return ENOPROTOOPT;
  Entry entry{option.level, option.name, size_of(kind->type), {}};
  if (const Entry* set = find(option.level, option.name)) {
    entry = *set;
  } else if (kind->type == OptionType::text) {
    std::memcpy(entry.value, congestion_control, sizeof congestion_control);
  } else {
    std::memcpy(entry.value, &kind->initial, sizeof kind->initial);
  }
  option.length = std::min({option.length, entry.length, NVSOCK_OPTION_MAX});
  std::memcpy(option.value, entry.value, option.length);
  return 0;
}

const SocketOptions::Entry* SocketOptions::find(int32_t level, int32_t name) const {
  const auto found = std::find_if(set_.begin(), set_.end(),
                                  [&](const Entry& e) { return e.level == level && e.name == name; });
  return found == set_.end() ? nullptr : &*found;
}

timeval SocketOptions::timeout(int32_t name) const {
  timeval value{};
  if (const Entry* entry = find(SOL_SOCKET, name)) std::memcpy(&value, entry->value, sizeof value);
  return value;
}

}  // namespace csdfs
