#include "daemon/run_loop.hpp"

#include <sched.h>

namespace nvsock::daemon {

void run_loop(asio::io_context& loop, std::chrono::microseconds busy) {
  using Clock = std::chrono::steady_clock;
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof usable, &usable) == 0 && CPU_COUNT(&usable) < 2) busy = {};
  if (busy.count() == 0) {
    loop.run();
    return;
  }
  auto worked = Clock::now();
  while (!loop.stopped()) {
    if (loop.poll() == 0) {
      if (Clock::now() - worked < busy) continue;
      loop.run_one();
    }
    worked = Clock::now();
  }
}

}  // namespace nvsock::daemon
