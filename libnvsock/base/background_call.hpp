// A call that may block for as long as it likes, made beside the event loop: on a thread of its own, its
// result told on the loop. For what comes seldom, such as files and names of the system, of which C libraries
// have blocking calls only.
//
// Whoever waits may go meanwhile: the thread then ends by itself, with what it holds, and nobody hears of it.
// So the call may use nothing of its caller's but what it carries, and neither its end nor the process's
// waits for it.
//
// Threads: event loop only.
#pragma once

#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace nvsock {

template <typename T>
class BackgroundCall {
 public:
  using Work = std::function<T()>;
  using Done = std::function<void(T)>;

  explicit BackgroundCall(asio::io_context& loop) : loop_(loop) {}
  ~BackgroundCall() { drop(); }
  BackgroundCall(const BackgroundCall&) = delete;
  BackgroundCall& operator=(const BackgroundCall&) = delete;

  bool running() const { return shared_ != nullptr; }

  // Calls `work` on another thread, then, from the loop, `done` with what came of it: running() is false by
  // then. 0, or the errno of a thread that cannot be had. REQUIRES: not running.
  int start(Work work, Done done) {
    const auto shared = std::make_shared<Shared>();
    shared->owner = this;
    try {
      std::thread([shared, work = std::move(work)] {
        auto result = std::make_shared<T>(work());
        const std::lock_guard lock(shared->mutex);
        if (shared->owner == nullptr) return;
        asio::post(shared->owner->loop_, [shared, result] {
          if (shared->owner != nullptr) shared->owner->end(std::move(*result));
        });
      }).detach();
    } catch (const std::system_error& error) {
      return error.code().value();
    }
    shared_ = shared;
    done_ = std::move(done);
    return 0;
  }

  // What still comes is told to nobody.
  void drop() {
    if (!shared_) return;
    {
      const std::lock_guard lock(shared_->mutex);
      shared_->owner = nullptr;
    }
    shared_.reset();
    done_ = nullptr;
  }

 private:
  // Written on the loop alone, and under the mutex, because the thread reads it.
  struct Shared {
    std::mutex mutex;
    BackgroundCall* owner = nullptr;  // null: nobody waits any more
  };

  void end(T result) {
    const Done done = std::exchange(done_, nullptr);
    drop();
    done(std::move(result));  // last: it may start another, or destroy this
  }

  asio::io_context& loop_;
  std::shared_ptr<Shared> shared_;
  Done done_;
};

}  // namespace nvsock
