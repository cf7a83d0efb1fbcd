// How an event loop that carries connections waits: asleep when idle, awake for a moment after work.
// Threads: the one that calls run_loop() is the event loop's.
#pragma once

#include <asio/io_context.hpp>
#include <chrono>

namespace nvsock::daemon {

// Runs LOOP until it is stopped. After every event the thread goes on looking for the next one for BUSY
// before it sleeps: a reply is usually on its way already, and waking a thread on another processor costs
// more than the work itself (a 64-byte round trip takes about half the time with 50 us). An idle mount
// sleeps. BUSY is taken as 0 where only one processor may be used: there, looking keeps the others waiting.
void run_loop(asio::io_context& loop, std::chrono::microseconds busy);

}  // namespace nvsock::daemon
