#include "fuse/shutdown.hpp"

#include <algorithm>
#include <utility>

namespace csdfs {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

// When nothing is left that anybody was promised. A terminal's Ctrl-C and a service manager's stop should not
// take longer.
constexpr auto farewell = 1s;       // for telling the drive that this was all
constexpr auto cut_limit = 4500ms;  // for connections that programs had open (Stream::cut_on_release)

constexpr auto longest_step = 20ms;

}  // namespace

void Shutdown::start() {
  started_ = true;
  last_progress_ = Clock::now();
  deadline_ = last_progress_ + patience_;
  step();
}

void Shutdown::step() {
  const Time now = Clock::now();
  const nvsock::Undelivered left = filesystem_.undelivered();
  if (!left.none() && (filesystem_.finished() || now >= deadline_)) give_up(left);
  if (lost_ ? filesystem_.detached() : filesystem_.finished()) return loop_.stop();
  if (!left.none() && !lost_) last_progress_ = now;
  if (now - last_progress_ >= (lost_ || filesystem_.drained() ? farewell : cut_limit)) return loop_.stop();
  timer_.expires_after(next_step_);
  next_step_ = std::min<std::chrono::milliseconds>(2 * next_step_, longest_step);
  timer_.async_wait([this](const asio::error_code&) { step(); });
}

void Shutdown::give_up(const nvsock::Undelivered& left) {
  if (std::exchange(lost_, true)) return;
  log_.warn("{} bytes of {} connections were accepted and not taken by their services: they are lost",
            left.bytes, left.connections);
  filesystem_.give_up();
}

void Shutdown::end() {
  if (const nvsock::Undelivered left = filesystem_.undelivered(); !left.none()) give_up(left);
  loop_.stop();
}

}  // namespace csdfs
