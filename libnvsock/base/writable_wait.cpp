#include "libnvsock/base/writable_wait.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <asio/posix/stream_descriptor.hpp>
#include <cassert>
#include <cerrno>
#include <span>
#include <system_error>
#include <utility>

namespace nvsock {

// A service of the loop: made with the first wait, gone with the loop.
class WritableWaits final : public asio::execution_context::service {
 public:
  using key_type = WritableWaits;
  inline static asio::execution_context::id id;

  explicit WritableWaits(asio::execution_context& loop)
      : service(loop), epoll_(static_cast<asio::io_context&>(loop)) {
    const int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0) throw std::system_error(errno, std::system_category(), "epoll_create1");
    epoll_.assign(fd);
  }

  bool add(WritableWait& wait) {
    epoll_event event{};
    event.events = EPOLLOUT | EPOLLONESHOT;
    event.data.ptr = &wait;
    if (epoll_ctl(epoll_.native_handle(), EPOLL_CTL_ADD, wait.socket_, &event) != 0) return false;
    waiting_.push_back(wait);
    watch();
    return true;
  }

  void remove(WritableWait& wait) {
    epoll_ctl(epoll_.native_handle(), EPOLL_CTL_DEL, wait.socket_, nullptr);
    wait.unlist();
    for (epoll_event& event : told_) {
      if (event.data.ptr == &wait) event.data.ptr = nullptr;
    }
  }

 private:
  void shutdown() override {
    asio::error_code ignored;
    epoll_.close(ignored);
    // Who waits keeps itself alive by that.
    while (!waiting_.empty()) {
      const std::shared_ptr<WritableWait::Waiter> waiter = std::move(waiting_.pop_front().waiter_);
    }
  }

  void watch() {
    if (std::exchange(watched_, true)) return;
    epoll_.async_wait(asio::posix::stream_descriptor::wait_read, [this](const asio::error_code& cancelled) {
      watched_ = false;
      if (cancelled) return;
      tell();
      if (!waiting_.empty()) watch();
    });
  }

  // Who is told may stop others that are told in the same call: remove() strikes them out.
  void tell() {
    const int count = epoll_wait(epoll_.native_handle(), events_.data(), static_cast<int>(events_.size()), 0);
    told_ = std::span(events_).first(count < 0 ? 0 : static_cast<size_t>(count));
    for (const epoll_event& event : told_) {
      auto* const wait = static_cast<WritableWait*>(event.data.ptr);
      if (wait == nullptr) continue;
      const std::shared_ptr<WritableWait::Waiter> waiter = wait->waiter_;
      wait->stop();
      waiter->on_writable();
    }
    told_ = {};
  }

  asio::posix::stream_descriptor epoll_;
  std::array<epoll_event, 64> events_;
  std::span<epoll_event> told_;  // of events_, while they are told
  List<WritableWait> waiting_;
  bool watched_ = false;
};

void WritableWait::prepare(asio::io_context& loop) {
  asio::use_service<WritableWaits>(loop);
}

WritableWait::WritableWait(asio::io_context& loop) : all_(asio::use_service<WritableWaits>(loop)) {}

bool WritableWait::start(int socket, std::shared_ptr<Waiter> waiter) {
  assert(!waiting());
  socket_ = socket;
  waiter_ = std::move(waiter);
  if (all_.add(*this)) return true;
  waiter_.reset();
  return false;
}

void WritableWait::stop() {
  if (!waiting()) return;
  all_.remove(*this);
  // Moved out first: it may own this object.
  const std::shared_ptr<Waiter> waiter = std::move(waiter_);
}

}  // namespace nvsock
