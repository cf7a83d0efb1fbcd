// The server every transport ends at: echo, sink or source, as the client asks (blocks.hpp).
#pragma once

#include <cstdint>

#include "bench/process.hpp"

namespace bench {

// A server process on a free port of 127.0.0.1, with TCP_NODELAY and a thread for every connection. It
// gives up connections that stall for ten seconds.
struct Server {
  Child process;
  uint16_t port;
};

// The server stays on `cpu`. Listening when this returns. REQUIRES: no threads yet.
Result<Server> start_server(int cpu);

}  // namespace bench
