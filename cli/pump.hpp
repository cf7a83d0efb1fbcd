// Moves bytes between a connection's file in a mount and descriptors of this process, as nc(1) does.
//
// Threads: the main thread. Blocks until the connection has ended.
#pragma once

#include <string>

#include "libnvsock/base/result.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock::cli {

// Opens MOUNT/tcp/HOST:PORT or the like under udp/, and waits for the connection: a descriptor, or the
// drive's error with a sentence.
Result<int> open_connection(const std::string& mount, const Endpoint& where);

// From `in` to the connection and from there to `out`, which may be the same socket. The end of `in` becomes
// a half-close; the connection's end, once everything it sent is written, is the end of the pump. An error of
// the connection, or of writing to `out`, is told.
Result<void> pump(int connection, int in, int out);

}  // namespace nvsock::cli
