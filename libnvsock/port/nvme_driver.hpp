// What the two ways through the kernel's NVMe driver have in common (libnvsock/port/passthrough_port.hpp):
// the open controller, how many commands it may have, and what becomes of one.
//
// Threads: a DriverQueue is one port's, which locks it where it has threads; the rest is constant.
#pragma once

#include <unistd.h>

#include <memory>
#include <string>

#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/command_port.hpp"

namespace nvsock {

// An open /dev/nvmeN. Shared with whatever outlives a port.
struct ControllerFile {
  explicit ControllerFile(int descriptor) : fd(descriptor) {}
  ~ControllerFile() { close(fd); }
  ControllerFile(const ControllerFile&) = delete;
  ControllerFile& operator=(const ControllerFile&) = delete;

  const int fd;
};

// NAME as in "nvme1". The sentence names /dev/NAME. Commands need CAP_SYS_ADMIN, each at its time.
Result<std::shared_ptr<const ControllerFile>> open_controller(const std::string& name);

// Of the commands placed, which may go to the driver now.
//
// Linux has 28 to 30 admin tags, shared with Identify and friends, which wait uninterruptibly for one; a
// command keeps its tag until it completes, whatever becomes of the process. Hence the limits. Reads may stay
// for as long as a service is silent, so some room is not for them: writes, opens, and the closes that end
// those reads.
//
// In the order placed, but for reads that have to wait for others to end. A close that passed a read of its
// relay for nothing would let that read take the bytes of the relay's next owner.
class DriverQueue {
 public:
  static constexpr unsigned max_in_flight = 16;
  static constexpr unsigned max_blocking = 12;
  static constexpr unsigned max_abandoned = 8;  // half of the tags we take: the drive needs a reset by then

  static constexpr PortTraits traits{.ordered = false,
                                     .max_in_flight = max_in_flight,
                                     .max_blocking = max_blocking,
                                     .max_abandoned = max_abandoned,
                                     .max_reads_per_stream = 1};

  void push(Command& command) {
    placed_.push(command);
    ++waiting_;
    waiting_short_ += !command.may_block;
  }
  // May one go?
  bool ready() const {
    return in_flight_ < max_in_flight && (room_for_blocking() ? waiting_ > 0 : waiting_short_ > 0);
  }
  // The next, in flight from now on. REQUIRES: ready().
  Command& take() {
    Command& command = next();
    --waiting_;
    waiting_short_ -= !command.may_block;
    ++in_flight_;
    blocking_in_flight_ += command.may_block;
    return command;
  }
  void finished(const Command& command) {
    --in_flight_;
    blocking_in_flight_ -= command.may_block;
  }

  unsigned waiting() const { return waiting_; }
  unsigned in_flight() const { return in_flight_; }

 private:
  bool room_for_blocking() const { return blocking_in_flight_ < max_blocking; }
  Command& next() {
    while (!room_for_blocking() && placed_.front()->may_block) passed_.push(placed_.pop());
    const bool older_waits = !passed_.empty() && (placed_.empty() || placed_.front()->may_block);
    return older_waits ? passed_.pop() : placed_.pop();
  }

  CommandQueue placed_;         // in order
  CommandQueue passed_;         // older ones that may block, and were passed because too many did
  unsigned waiting_ = 0;        // in both
  unsigned waiting_short_ = 0;  // of them, those that do not block
  unsigned in_flight_ = 0;
  unsigned blocking_in_flight_ = 0;
};

// What Linux tells of a command, the same both ways (nvme_execute_rq and nvme_uring_cmd_end_io in Linux 6.1
// to 6.12): a negative errno, EINTR when a reset cancelled it, or the status with Do Not Retry, More and
// Command Retry Delay in its upper bits.
constexpr Completion driver_completion(int outcome, uint32_t dw0) {
  if (outcome < 0) return {.error = -outcome};
  return {.status = static_cast<uint16_t>(outcome & 0x7ff), .dw0 = dw0};
}

}  // namespace nvsock
