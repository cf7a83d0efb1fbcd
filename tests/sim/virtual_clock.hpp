// Time that jumps to the next event. Events of one moment run in the order in which they were made.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "libnvsock/base/clock.hpp"

namespace nvsock::sim {

class VirtualClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  std::unique_ptr<Clock::Timer> make_timer() override { return std::make_unique<Timer>(*this); }

  void after(Duration delay, std::function<void()> call) { push(delay, std::move(call), nullptr); }
  // A call that does not run once `alive` is gone.
  void after(Duration delay, const std::shared_ptr<const bool>& alive, std::function<void()> call) {
    push(
        delay,
        [weak = std::weak_ptr(alive), call = std::move(call)] {
          if (!weak.expired()) call();
        },
        nullptr);
  }

  // Runs the next event; false: there is none.
  bool step() {
    while (!events_.empty()) {
      std::pop_heap(events_.begin(), events_.end(), later);
      Event event = std::move(events_.back());
      events_.pop_back();
      if (event.generation && *event.generation != event.armed_as) continue;
      now_ = std::max(now_, event.at);
      event.call();
      return true;
    }
    return false;
  }

 private:
  struct Event {
    TimePoint at;
    uint64_t order = 0;
    std::function<void()> call;
    std::shared_ptr<uint64_t> generation;  // null: cannot be disarmed
    uint64_t armed_as = 0;
  };
  static bool later(const Event& a, const Event& b) {
    return std::pair(a.at, a.order) > std::pair(b.at, b.order);
  }

  class Timer final : public Clock::Timer {
   public:
    explicit Timer(VirtualClock& clock) : clock_(clock) {}
    ~Timer() override { disarm(); }
    void arm(Duration after, std::function<void()> call) override {
      ++*generation_;
      clock_.push(after, std::move(call), generation_);
    }
    void disarm() override { ++*generation_; }

   private:
    VirtualClock& clock_;
    std::shared_ptr<uint64_t> generation_ = std::make_shared<uint64_t>(0);
  };

  void push(Duration delay, std::function<void()> call, std::shared_ptr<uint64_t> generation) {
    const uint64_t armed_as = generation ? *generation : 0;
    events_.push_back({now_ + std::max(delay, Duration::zero()), next_order_++, std::move(call),
                       std::move(generation), armed_as});
    std::push_heap(events_.begin(), events_.end(), later);
  }

  TimePoint now_{};
  uint64_t next_order_ = 0;
  std::vector<Event> events_;
};

}  // namespace nvsock::sim
