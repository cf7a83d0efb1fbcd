#include "fuse/socket_options.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace csdfs {
namespace {

enum class Type : uint8_t { integer, flag, timeval, linger, text };

struct Known {
  int32_t level;
  int32_t name;
  Type type;
  int32_t initial;  // what a fresh TCP socket of Linux 6.1 says, for integers and flags
};

constexpr Known known[] = {
    {SOL_SOCKET, SO_RCVTIMEO, Type::timeval, 0},
    {SOL_SOCKET, SO_SNDTIMEO, Type::timeval, 0},
    {SOL_SOCKET, SO_LINGER, Type::linger, 0},
    {SOL_SOCKET, SO_KEEPALIVE, Type::flag, 0},
    {SOL_SOCKET, SO_REUSEADDR, Type::flag, 0},
    {SOL_SOCKET, SO_REUSEPORT, Type::flag, 0},
    {SOL_SOCKET, SO_BROADCAST, Type::flag, 0},
    {SOL_SOCKET, SO_OOBINLINE, Type::flag, 0},
    {SOL_SOCKET, SO_DONTROUTE, Type::flag, 0},
    {SOL_SOCKET, SO_TIMESTAMP, Type::flag, 0},
    {SOL_SOCKET, SO_SNDBUF, Type::integer, 2626560},
    {SOL_SOCKET, SO_RCVBUF, Type::integer, 131072},
    {SOL_SOCKET, SO_RCVLOWAT, Type::integer, 1},
    {SOL_SOCKET, SO_PRIORITY, Type::integer, 0},
    {SOL_SOCKET, SO_MARK, Type::integer, 0},
    {SOL_SOCKET, SO_BUSY_POLL, Type::integer, 0},
    {SOL_SOCKET, SO_INCOMING_CPU, Type::integer, 0},
    {IPPROTO_IP, IP_TOS, Type::integer, 0},
    {IPPROTO_IP, IP_TTL, Type::integer, 64},
    {IPPROTO_IP, IP_MTU_DISCOVER, Type::integer, 1},
    {IPPROTO_IP, IP_RECVERR, Type::flag, 0},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, Type::flag, 0},
    {IPPROTO_IPV6, IPV6_V6ONLY, Type::flag, 0},
    {IPPROTO_IPV6, IPV6_TCLASS, Type::integer, 0},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, Type::integer, 64},
    {IPPROTO_TCP, TCP_NODELAY, Type::flag, 0},
    {IPPROTO_TCP, TCP_CORK, Type::flag, 0},
    {IPPROTO_TCP, TCP_QUICKACK, Type::flag, 1},
    {IPPROTO_TCP, TCP_MAXSEG, Type::integer, 1448},
    {IPPROTO_TCP, TCP_KEEPIDLE, Type::integer, 7200},
    {IPPROTO_TCP, TCP_KEEPINTVL, Type::integer, 75},
    {IPPROTO_TCP, TCP_KEEPCNT, Type::integer, 9},
    {IPPROTO_TCP, TCP_SYNCNT, Type::integer, 6},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, Type::integer, 0},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, Type::integer, 0},
    {IPPROTO_TCP, TCP_LINGER2, Type::integer, 60},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, Type::integer, 0},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, Type::flag, 0},
    {IPPROTO_TCP, TCP_CONGESTION, Type::text, 0},
};

constexpr char congestion_control[16] = "cubic";  // Linux's default

const Known* find_known(int32_t level, int32_t name) {
  const auto found = std::find_if(std::begin(known), std::end(known),
                                  [&](const Known& k) { return k.level == level && k.name == name; });
  return found == std::end(known) ? nullptr : found;
}

uint32_t size_of(Type type) {
  switch (type) {
    case Type::integer:
    case Type::flag:
      return sizeof(int32_t);
    case Type::timeval:
      return sizeof(timeval);
    case Type::linger:
      return sizeof(linger);
    case Type::text:
      return sizeof congestion_control;
  }
  return 0;
}

}  // namespace

int SocketOptions::set(const nvsock_option& option) {
  const Known* kind = find_known(option.level, option.name);
  if (kind == nullptr) return ENOPROTOOPT;
  const uint32_t size = size_of(kind->type);
  // Those of IP may be given in one byte (Linux: do_ip_setsockopt).
  const uint32_t least = kind->type == Type::text ? 0 : option.level == IPPROTO_IP ? 1 : size;
  if (option.length > NVSOCK_OPTION_MAX || option.length < least) return EINVAL;

  Entry entry{option.level, option.name, size, {}};
  std::memcpy(entry.value, option.value, std::min(size, option.length));
  if (kind->type == Type::integer || kind->type == Type::flag) {
    int32_t value = 0;
    std::memcpy(&value, entry.value, sizeof value);
    if (kind->type == Type::flag) value = value != 0;
    // The kernel books the same again for its own use and tells the sum (socket(7)).
    if (option.level == SOL_SOCKET && (option.name == SO_SNDBUF || option.name == SO_RCVBUF)) {
      value = std::clamp(value, 1152, 1 << 22) * 2;
    }
    std::memcpy(entry.value, &value, sizeof value);
  } else if (kind->type == Type::timeval) {
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
  const Known* kind = find_known(option.level, option.name);
  if (kind == nullptr) return ENOPROTOOPT;
  Entry entry{option.level, option.name, size_of(kind->type), {}};
  if (const Entry* set = find(option.level, option.name)) {
    entry = *set;
  } else if (kind->type == Type::text) {
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
