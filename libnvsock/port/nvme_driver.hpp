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
    (command.may_block ? blocking_ : short_).push(command);
    ++waiting_;
  }
  // May one go?
  bool ready() const {
    return in_flight_ < max_in_flight &&
           (!short_.empty() || (!blocking_.empty() && blocking_in_flight_ < max_blocking));
  }
  // The next, in flight from now on. Short ones first: a read must never keep a close waiting. REQUIRES:
  // ready().
  Command& take() {
    Command& command = short_.empty() ? blocking_.pop() : short_.pop();
    --waiting_;
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
  CommandQueue short_;
  CommandQueue blocking_;  // may_block
  unsigned waiting_ = 0;   // in both
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
