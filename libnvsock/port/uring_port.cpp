#include "libnvsock/port/uring_port.hpp"

#include <liburing.h>
#include <linux/nvme_ioctl.h>
#include <sys/eventfd.h>

#include <asio/buffer.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <cassert>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/nvme/completion_delivery.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;

// The kernel had no memory to take what is in the ring.
constexpr auto retry_delay = 10ms;

// What NVMe passthrough needs. A command that fails at once must not hold back those behind it, and
// io_uring_peek_cqe() has to see when the kernel has more to give.
constexpr unsigned ring_flags =
    IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG;

// Completions wait until this thread asks for them or, before Linux 6.1, until it enters the kernel.
constexpr unsigned deferred = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
constexpr unsigned cooperative = IORING_SETUP_COOP_TASKRUN;

// 0 or a negative errno.
int set_up(io_uring& ring, int event_fd) {
  int result = -EINVAL;
  for (const unsigned kind : {deferred, cooperative}) {
    io_uring_params parameters{};
    parameters.flags = ring_flags | kind;
    result = io_uring_queue_init_params(DriverQueue::max_in_flight, &ring, &parameters);
    if (result != -EINVAL) break;
  }
  if (result < 0) return result;
  result = io_uring_register_eventfd(&ring, event_fd);
  if (result < 0) io_uring_queue_exit(&ring);
  return result;
}

class UringPort final : public CommandPort {
 public:
  UringPort(asio::io_context& loop, std::shared_ptr<const ControllerFile> controller, const io_uring& ring,
            int event_fd)
      : controller_(std::move(controller)),
        ring_(ring),
        events_(loop, event_fd),
        retry_(AsioClock(loop).make_timer()) {
    await_events();
  }
  ~UringPort() override {
    stop();
    io_uring_queue_exit(&ring_);
  }

  bool stop() override {
    *self_ = nullptr;
    asio::error_code ignored;
    events_.close(ignored);
    retry_->disarm();
    delivery_.clear();
    while (next_completed() != nullptr) {
    }
    return queue_.in_flight() == 0;
  }

  void submit(Command& command) override { submitted_.push(command); }

  void ring() override {
    while (!submitted_.empty()) queue_.push(submitted_.pop());
    if (!delivery_.delivering()) flush();
  }

  PortTraits traits() const override { return DriverQueue::traits; }
  std::string describe() const override { return "io_uring passthrough"; }

 private:
  void await_events() {
    events_.async_read_some(asio::buffer(&event_count_, sizeof event_count_),
                            [self = self_](const asio::error_code& cancelled, size_t) {
                              if (cancelled || *self == nullptr) return;
                              (*self)->await_events();
                              (*self)->deliver();
                            });
  }

  void flush();
  void prepare(Command& command);
  Command* next_completed();
  void deliver();

  const std::shared_ptr<const ControllerFile> controller_;
  io_uring ring_;
  DriverQueue queue_;
  CommandQueue submitted_;
  asio::posix::stream_descriptor events_;  // counts up when the ring has completions
  uint64_t event_count_ = 0;
  std::unique_ptr<Clock::Timer> retry_;
  CompletionDelivery delivery_;
  // A handler that is queued already runs after the port is gone.
  const std::shared_ptr<UringPort*> self_ = std::make_shared<UringPort*>(this);
};

// Gives the driver what it has room for, in one call.
void UringPort::flush() {
  while (queue_.ready()) prepare(queue_.take());
  while (io_uring_sq_ready(&ring_) > 0) {
    if (io_uring_submit(&ring_) < 0) return retry_->arm(retry_delay, [this] { flush(); });
  }
}

void UringPort::prepare(Command& command) {
  io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
  assert(entry != nullptr);  // there are as many as may be in flight
  io_uring_prep_rw(IORING_OP_URING_CMD, entry, controller_->fd, nullptr, 0, 0);
  entry->cmd_op = NVME_URING_CMD_ADMIN;
  io_uring_sqe_set_data(entry, &command);
  nvme_uring_cmd body{};
  body.opcode = command.opcode;
  body.nsid = command.nsid;
  body.addr = reinterpret_cast<uintptr_t>(command.data);
  body.data_len = command.data_length;
  body.cdw10 = command.cdw10;
  body.cdw11 = command.cdw11;
  body.cdw12 = command.cdw12;
  body.cdw13 = command.cdw13;
  body.cdw14 = command.cdw14;
  body.cdw15 = command.cdw15;
  body.timeout_ms = static_cast<uint32_t>(command.timeout.count());
  // Behind the entry's head and into the second half of its 128 bytes, of which the compiler knows nothing.
  std::memcpy(reinterpret_cast<uint8_t*>(entry) + offsetof(io_uring_sqe, cmd), &body, sizeof body);
}

// Takes one out of the ring; null: there is none.
Command* UringPort::next_completed() {
  io_uring_cqe* entry = nullptr;
  if (io_uring_peek_cqe(&ring_, &entry) != 0) return nullptr;
  auto& command = *static_cast<Command*>(io_uring_cqe_get_data(entry));
  command.completion = driver_completion(entry->res, static_cast<uint32_t>(entry->big_cqe[0]));
  io_uring_cqe_seen(&ring_, entry);
  queue_.finished(command);
  return &command;
}

// What completions place is submitted once, behind the last of them.
void UringPort::deliver() {
  while (Command* const command = next_completed()) delivery_.push(*command);
  delivery_.deliver([this] {
    if (client_ != nullptr) client_->on_batch_end();
  });
  flush();
}

// Behind "no io_uring: ".
std::string refusal(int code) {
  switch (code) {
    case ENOSYS:
      return "the kernel has none";
    case EPERM:
    case EACCES:
      return "sysctl kernel.io_uring_disabled or a seccomp filter forbids it";
    case EINVAL:
      return "the kernel's is older than NVMe passthrough (Linux 5.19)";
    default:
      return std::strerror(code);
  }
}

}  // namespace

Result<std::unique_ptr<CommandPort>> make_uring_port(asio::io_context& loop,
                                                     std::shared_ptr<const ControllerFile> controller) {
  const int event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (event_fd < 0) return Error{errno, refusal(errno)};
  io_uring ring;
  if (const int result = set_up(ring, event_fd); result < 0) {
    close(event_fd);
    return Error{-result, refusal(-result)};
  }
  return std::unique_ptr<CommandPort>(
      std::make_unique<UringPort>(loop, std::move(controller), ring, event_fd));
}

}  // namespace nvsock
