#include "libnvsock/port/ioctl_port.hpp"

#include <libnvme.h>

#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "libnvsock/nvme/completion_delivery.hpp"

namespace nvsock {
namespace {

class IoctlPort;

// What the threads share with the port. They hold it by shared_ptr: a thread stuck in a command outlives
// the port, and so must the queue it returns to.
struct Shared {
  std::shared_ptr<const ControllerFile> controller;
  std::mutex mutex;
  std::condition_variable work;
  DriverQueue queue;
  unsigned idle = 0;  // threads waiting for work, or told to wake
  bool stopped = false;
  IoctlPort* port = nullptr;  // null once the port is gone; read on the loop's thread only
};

void run_command(int fd, Command& command) {
  uint32_t result = 0;
  const int outcome =
      nvme_admin_passthru(fd, command.opcode, 0, 0, command.nsid, 0, 0, command.cdw10, command.cdw11,
                          command.cdw12, command.cdw13, command.cdw14, command.cdw15, command.data_length,
                          command.data, 0, nullptr, static_cast<uint32_t>(command.timeout.count()), &result);
  command.completion = driver_completion(outcome < 0 ? -errno : outcome, result);
}

class IoctlPort final : public CommandPort {
 public:
  IoctlPort(asio::io_context& loop, std::shared_ptr<const ControllerFile> controller, std::string why)
      : work_(asio::make_work_guard(loop)), shared_(std::make_shared<Shared>()), why_(std::move(why)) {
    shared_->controller = std::move(controller);
    shared_->port = this;
  }

  ~IoctlPort() override { stop(); }

  bool stop() override {
    shared_->port = nullptr;
    const std::lock_guard lock(shared_->mutex);
    shared_->stopped = true;
    shared_->work.notify_all();
    return shared_->queue.in_flight() == 0;
  }

  void submit(Command& command) override { submitted_.push(command); }

  void ring() override {
    const std::lock_guard lock(shared_->mutex);
    while (!submitted_.empty()) {
      shared_->queue.push(submitted_.pop());
      if (shared_->queue.waiting() > shared_->idle && threads_ < DriverQueue::max_in_flight) start_thread();
      shared_->work.notify_one();
    }
  }

  PortTraits traits() const override { return DriverQueue::traits; }

  std::string describe() const override {
    return "ioctl passthrough" + (why_.empty() ? "" : " (" + why_ + ")");
  }

 private:
  void start_thread() {
    ++threads_;
    std::thread([shared = shared_, loop = work_.get_executor()] { serve(shared, loop); }).detach();
  }

  static void serve(const std::shared_ptr<Shared>& keep, const asio::io_context::executor_type& loop) {
    Shared& shared = *keep;
    std::unique_lock lock(shared.mutex);
    for (;;) {
      ++shared.idle;
      shared.work.wait(lock, [&] { return shared.stopped || shared.queue.ready(); });
      --shared.idle;
      if (shared.stopped) return;
      Command& command = shared.queue.take();
      lock.unlock();
      run_command(shared.controller->fd, command);
      lock.lock();
      shared.queue.finished(command);
      if (shared.stopped) return;
      asio::post(loop, [keep, &command] {
        if (keep->port != nullptr) keep->port->complete(command);
      });
    }
  }

  void complete(Command& command) {
    delivery_.push(command);
    delivery_.deliver([this] {
      if (client_ != nullptr) client_->on_batch_end();
    });
  }

  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::shared_ptr<Shared> shared_;
  const std::string why_;
  CommandQueue submitted_;
  CompletionDelivery delivery_;
  unsigned threads_ = 0;
};

}  // namespace

std::unique_ptr<CommandPort> make_ioctl_port(asio::io_context& loop,
                                             std::shared_ptr<const ControllerFile> controller,
                                             std::string why) {
  return std::make_unique<IoctlPort>(loop, std::move(controller), std::move(why));
}

}  // namespace nvsock
