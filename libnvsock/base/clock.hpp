// Time, as the protocol engines see it: asked for, and waited for. Real time on the event loop, or virtual
// time in a simulation. Threads: event loop only.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

namespace nvsock {

class Clock {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  // One deadline, armed and disarmed at will. Destroying it disarms it. A call that was disarmed or moved
  // never runs, not even when its time had come already.
  class Timer {
   public:
    virtual ~Timer() = default;
    virtual void arm(Duration after, std::function<void()> call) = 0;  // replaces what was armed before
    virtual void disarm() = 0;
  };

  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
  virtual std::unique_ptr<Timer> make_timer() = 0;
};

}  // namespace nvsock
