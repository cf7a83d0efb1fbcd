// socat as a TCP relay: what people use today, and so the measure of a relay that is good enough.
#pragma once

#include <cstdint>

#include "bench/process.hpp"

namespace bench {

struct Relay {
  Child process;
  uint16_t port;  // of 127.0.0.1, where it listens
};

// Relays a free port of 127.0.0.1 to `server_port`. Listening when this returns, at the latest after five
// seconds (ETIMEDOUT). ENOENT: socat is not installed.
Result<Relay> start_relay(uint16_t server_port);

}  // namespace bench
