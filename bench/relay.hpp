// socat as a TCP relay: what people use today, and so the measure of a relay that is good enough.
#pragma once

#include <cstdint>

#include "bench/server.hpp"

namespace bench {

// Relays a free port of 127.0.0.1 to `server_port`. Listening when this returns; errors as start_listening().
// ENOENT: socat is not installed.
Result<Server> start_relay(uint16_t server_port);

}  // namespace bench
