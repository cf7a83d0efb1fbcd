// The two kinds of sockets that a drive has. The numbers are those of the relay protocol
// (docs/relay-protocol.md section 4, targets). Threads: any.
#pragma once

#include <cstdint>

namespace nvsock {

enum class SocketType : uint8_t {
  stream = 1,    // TCP
  datagram = 2,  // UDP
};

}  // namespace nvsock
