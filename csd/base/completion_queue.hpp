// Where a drive's completions go. Threads: event loop only.
#pragma once

#include "libnvsock/nvme/command.hpp"

namespace nvsock::csd {

class CompletionQueue {
 public:
  // post() per command, then flush() once for all that were at hand. flush() runs Command::done, which may
  // submit further commands: whoever flushes touches nothing of its own afterwards.
  virtual void post(Command& command) = 0;
  virtual void flush() = 0;

 protected:
  ~CompletionQueue() = default;
};

}  // namespace nvsock::csd
