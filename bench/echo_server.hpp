// An echo server for thousands of connections at a time, in a process of its own: one thread and epoll.
#pragma once

#include "bench/server.hpp"

namespace bench {

// 10 000 connections to one address would use up a third of the ports there are for the other end.
inline constexpr int echo_addresses = 4;  // 127.0.0.1 to 127.0.0.4, at the same port

// Listening when this returns. Connections leave nothing behind: no port waits for its next use.
Result<Server> start_echo_server();

// Raises the limit of descriptors as far as it goes, for one descriptor a connection.
void allow_many_descriptors();

}  // namespace bench
