#include "libnvsock/ioctl_port.hpp"

#include <libnvme.h>
#include <unistd.h>

#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

namespace nvsock {
namespace {

class IoctlPort;

// What the threads share with the port. They hold it by shared_ptr: a thread stuck in a command outlives
// the port, and so must the queue it returns to.
struct Shared {
  explicit Shared(int descriptor) : fd(descriptor) {}
  ~Shared() { close(fd); }

  const int fd;
  std::mutex mutex;
  std::condition_variable work;
  CommandQueue ready;  // short commands first: a read must never keep a close waiting
  CommandQueue ready_blocking;
  unsigned queued = 0;    // commands in both queues
  unsigned idle = 0;      // threads waiting for work, or told to wake
  unsigned running = 0;   // threads in a command
  unsigned blocking = 0;  // threads in a command that may block
  bool stopped = false;
  IoctlPort* port = nullptr;  // null once the port is gone; read on the loop's thread only
};

void run_command(int fd, Command& command) {
  uint32_t result = 0;
  const int outcome =
      nvme_admin_passthru(fd, command.opcode, 0, 0, command.nsid, 0, 0, command.cdw10, command.cdw11,
                          command.cdw12, command.cdw13, command.cdw14, command.cdw15, command.data_length,
                          command.data, 0, nullptr, static_cast<uint32_t>(command.timeout.count()), &result);
  command.completion = {};
  if (outcome < 0) {
    command.completion.error = errno;
  } else {
    // The driver leaves More, Retry Delay and Do Not Retry in the upper bits.
    command.completion.status = static_cast<uint16_t>(outcome & 0x7ff);
    command.completion.dw0 = result;
  }
}

class IoctlPort final : public CommandPort {
 public:
  IoctlPort(asio::io_context& loop, int fd)
      : work_(asio::make_work_guard(loop)), shared_(std::make_shared<Shared>(fd)) {
    shared_->port = this;
  }

  ~IoctlPort() override { stop(); }

  bool stop() override {
    shared_->port = nullptr;
    const std::lock_guard lock(shared_->mutex);
    shared_->stopped = true;
    shared_->work.notify_all();
    return shared_->running == 0;
  }

  void submit(Command& command) override { submitted_.push(command); }

  void ring() override {
    const std::lock_guard lock(shared_->mutex);
    while (!submitted_.empty()) {
      Command& command = submitted_.pop();
      (command.may_block ? shared_->ready_blocking : shared_->ready).push(command);
      if (++shared_->queued > shared_->idle && threads_ < ioctl_max_in_flight) start_thread();
      shared_->work.notify_one();
    }
  }

  PortTraits traits() const override {
    return {.ordered = false,
            .max_in_flight = ioctl_max_in_flight,
            .max_blocking = ioctl_max_blocking,
            .max_abandoned = ioctl_max_abandoned,
            .max_reads_per_stream = 1};
  }

  std::string describe() const override { return "ioctl passthrough"; }

 private:
  void start_thread() {
    ++threads_;
    std::thread([shared = shared_, loop = work_.get_executor()] { serve(shared, loop); }).detach();
  }

  static void serve(const std::shared_ptr<Shared>& keep, const asio::io_context::executor_type& loop) {
    Shared& shared = *keep;
    std::unique_lock lock(shared.mutex);
    for (;;) {
      const auto may_read = [&] {
        return !shared.ready_blocking.empty() && shared.blocking < ioctl_max_blocking;
      };
      ++shared.idle;
      shared.work.wait(lock, [&] { return shared.stopped || !shared.ready.empty() || may_read(); });
      --shared.idle;
      if (shared.stopped) return;
      Command& command = shared.ready.empty() ? shared.ready_blocking.pop() : shared.ready.pop();
      --shared.queued;
      shared.blocking += command.may_block;
      ++shared.running;
      lock.unlock();
      run_command(shared.fd, command);
      lock.lock();
      --shared.running;
      shared.blocking -= command.may_block;
      if (shared.stopped) return;
      asio::post(loop, [keep, &command] {
        if (keep->port != nullptr) keep->port->complete(command);
      });
    }
  }

  void complete(Command& command) {
    command.done(command);
    if (client_ != nullptr) client_->on_batch_end();
  }

  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::shared_ptr<Shared> shared_;
  CommandQueue submitted_;
  unsigned threads_ = 0;
};

}  // namespace

Result<std::unique_ptr<CommandPort>> open_ioctl_port(asio::io_context& loop, const std::string& name) {
  const int fd = nvme_open(name.c_str());
  if (fd < 0) {
    const int code = errno;
    return Error{code, "cannot open /dev/" + name + ": " + std::strerror(code)};
  }
  return std::unique_ptr<CommandPort>(std::make_unique<IoctlPort>(loop, fd));
}

}  // namespace nvsock
