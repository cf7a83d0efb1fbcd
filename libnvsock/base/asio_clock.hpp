// Clock on an Asio loop. Threads: event loop only.
#pragma once

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>

#include "libnvsock/base/clock.hpp"

namespace nvsock {

class AsioClock final : public Clock {
 public:
  explicit AsioClock(asio::io_context& loop) : loop_(loop) {}

  TimePoint now() const override { return std::chrono::steady_clock::now(); }
  std::unique_ptr<Timer> make_timer() override { return std::make_unique<AsioTimer>(loop_); }

 private:
  // A handler that is queued already runs with success even after its timer was cancelled or destroyed;
  // the generation, which handler and timer share, tells.
  class AsioTimer final : public Timer {
   public:
    explicit AsioTimer(asio::io_context& loop) : timer_(loop) {}
    ~AsioTimer() override { ++*generation_; }

    void arm(Duration after, std::function<void()> call) override {
      timer_.expires_after(after);
      timer_.async_wait([call = std::move(call), current = ++*generation_,
                         generation = generation_](const asio::error_code& cancelled) {
        if (!cancelled && *generation == current) call();
      });
    }
    void disarm() override {
      ++*generation_;
      timer_.cancel();
    }

   private:
    asio::steady_timer timer_;
    std::shared_ptr<uint64_t> generation_ = std::make_shared<uint64_t>(0);
  };

  asio::io_context& loop_;
};

}  // namespace nvsock
