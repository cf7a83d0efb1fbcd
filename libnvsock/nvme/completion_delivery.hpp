// The commands that a port has completed, on their way to who submitted them.
//
// Command::done may submit further commands and ring, which may complete them at once. So that calls do not
// nest, and a client hears of the end of a batch once, the outermost deliver() does all the work; it is a
// port's last act. Threads: event loop only.
#pragma once

#include "libnvsock/nvme/command.hpp"

namespace nvsock {

class CompletionDelivery {
 public:
  bool empty() const { return completed_.empty(); }
  bool delivering() const { return delivering_; }
  void push(Command& command) { completed_.push(command); }
  // Nobody is told of what is left. Allowed from within deliver().
  void clear() { completed_ = {}; }

  // Runs Command::done of every command pushed, then `batch_end`, and again for what was pushed meanwhile.
  template <typename BatchEnd>
  void deliver(BatchEnd batch_end) {
    if (delivering_) return;
    delivering_ = true;
    while (!completed_.empty()) {
      while (!completed_.empty()) {
        Command& command = completed_.pop();
        command.done(command);
      }
      batch_end();
    }
    delivering_ = false;
  }

 private:
  CommandQueue completed_;
  bool delivering_ = false;
};

}  // namespace nvsock
