// The socket options a mount file knows, one row each. csdfs remembers and tells every one of
// them; the preload library takes those that are `carried` from the socket a program had to the
// file that takes its place.
//
// A new option is a new row. Nothing else lists them.
//
// Constant data and constexpr functions only, because the preload library may need nothing of the
// C++ run time. Threads: any.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cstddef>
#include <cstdint>

namespace nvsock {

enum class OptionType : uint8_t {
  integer,  // int
  flag,     // int, told as 0 or 1
  timeval,  // struct timeval
  linger,   // struct linger
  text,     // up to 16 characters, the C library's TCP_CA_NAME_MAX
};

enum class Carried : bool {
  // What it is about ends with connect(), or lies beneath it: which processor polls, which port bind() takes,
  // data with the SYN. Or csdfs has nothing to give that it asks for, such as time stamps of packets.
  no,
  yes,  // a program may have set it before connect() and expects to hold it after
};

struct SocketOption {
  int level;
  int name;
  OptionType type;
  Carried carried;
  int initial;  // what a fresh TCP socket of Linux 6.1 says, for integers and flags
};

// Carried ones are set in this order.
inline constexpr SocketOption socket_options[] = {
    {SOL_SOCKET, SO_RCVTIMEO, OptionType::timeval, Carried::yes, 0},
    {SOL_SOCKET, SO_SNDTIMEO, OptionType::timeval, Carried::yes, 0},
    {SOL_SOCKET, SO_LINGER, OptionType::linger, Carried::yes, 0},
    {SOL_SOCKET, SO_KEEPALIVE, OptionType::flag, Carried::yes, 0},
    {SOL_SOCKET, SO_REUSEADDR, OptionType::flag, Carried::yes, 0},
    {SOL_SOCKET, SO_REUSEPORT, OptionType::flag, Carried::yes, 0},
    {SOL_SOCKET, SO_BROADCAST, OptionType::flag, Carried::yes, 0},
    {SOL_SOCKET, SO_OOBINLINE, OptionType::flag, Carried::yes, 0},
    {SOL_SOCKET, SO_DONTROUTE, OptionType::flag, Carried::yes, 0},
    {SOL_SOCKET, SO_TIMESTAMP, OptionType::flag, Carried::no, 0},
    {SOL_SOCKET, SO_SNDBUF, OptionType::integer, Carried::yes, 2626560},
    {SOL_SOCKET, SO_RCVBUF, OptionType::integer, Carried::yes, 131072},
    {SOL_SOCKET, SO_RCVLOWAT, OptionType::integer, Carried::yes, 1},
    {SOL_SOCKET, SO_MARK, OptionType::integer, Carried::yes, 0},
    {SOL_SOCKET, SO_BUSY_POLL, OptionType::integer, Carried::no, 0},
    {SOL_SOCKET, SO_INCOMING_CPU, OptionType::integer, Carried::no, 0},
    {IPPROTO_IP, IP_TOS, OptionType::integer, Carried::yes, 0},
    {SOL_SOCKET, SO_PRIORITY, OptionType::integer, Carried::yes, 0},  // behind IP_TOS, which sets it too
    {IPPROTO_IP, IP_TTL, OptionType::integer, Carried::yes, 64},
    {IPPROTO_IP, IP_MTU_DISCOVER, OptionType::integer, Carried::yes, 1},
    {IPPROTO_IP, IP_RECVERR, OptionType::flag, Carried::yes, 0},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, OptionType::flag, Carried::no, 0},
    {IPPROTO_IPV6, IPV6_V6ONLY, OptionType::flag, Carried::yes, 0},
    {IPPROTO_IPV6, IPV6_TCLASS, OptionType::integer, Carried::yes, 0},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, OptionType::integer, Carried::yes, 64},
    {IPPROTO_TCP, TCP_NODELAY, OptionType::flag, Carried::yes, 0},
    {IPPROTO_TCP, TCP_CORK, OptionType::flag, Carried::yes, 0},
    {IPPROTO_TCP, TCP_QUICKACK, OptionType::flag, Carried::yes, 1},
    {IPPROTO_TCP, TCP_MAXSEG, OptionType::integer, Carried::yes, 1448},
    {IPPROTO_TCP, TCP_KEEPIDLE, OptionType::integer, Carried::yes, 7200},
    {IPPROTO_TCP, TCP_KEEPINTVL, OptionType::integer, Carried::yes, 75},
    {IPPROTO_TCP, TCP_KEEPCNT, OptionType::integer, Carried::yes, 9},
    {IPPROTO_TCP, TCP_SYNCNT, OptionType::integer, Carried::yes, 6},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, OptionType::integer, Carried::no, 0},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, OptionType::integer, Carried::yes, 0},
    {IPPROTO_TCP, TCP_LINGER2, OptionType::integer, Carried::yes, 60},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, OptionType::integer, Carried::yes, 0},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, OptionType::flag, Carried::no, 0},
    {IPPROTO_TCP, TCP_CONGESTION, OptionType::text, Carried::yes, 0},
};

// Null: a mount file does not know it.
constexpr const SocketOption* find_socket_option(int level, int name) {
  for (const SocketOption& option : socket_options) {
    if (option.level == level && option.name == name) return &option;
  }
  return nullptr;
}

// Bytes a value of the type takes.
constexpr uint32_t size_of(OptionType type) {
  switch (type) {
    case OptionType::integer:
    case OptionType::flag:
      return sizeof(int);
    case OptionType::timeval:
      return sizeof(timeval);
    case OptionType::linger:
      return sizeof(linger);
    case OptionType::text:
      return 16;
  }
  return 0;
}
inline constexpr size_t largest_option = 16;

// The kernel books the same again for its own use, and tells the sum (socket(7)).
constexpr bool is_told_doubled(int level, int name) {
  return level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVBUF);
}

constexpr size_t count_carried() {
  size_t count = 0;
  for (const SocketOption& option : socket_options) count += option.carried == Carried::yes ? 1 : 0;
  return count;
}

// What the rows must hold to: each option once, and none larger than there is room for.
constexpr bool socket_options_fit() {
  for (const SocketOption& option : socket_options) {
    if (find_socket_option(option.level, option.name) != &option) return false;
    if (size_of(option.type) > largest_option) return false;
  }
  return true;
}
static_assert(socket_options_fit());

}  // namespace nvsock
