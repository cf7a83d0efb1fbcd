// The way vendor commands take to a controller: submit a command, get its completion on the event loop.
//
// Works like an NVMe submission queue: submit() places commands, ring() makes the drive look at all of
// them at once, so that a transport may treat a run of them together.
// Threads: all calls and all completions on the event loop's thread. No call blocks.
#pragma once

#include <string>

#include "libnvsock/base/undelivered.hpp"
#include "libnvsock/nvme/command.hpp"

namespace nvsock {

struct PortTraits {
  // Commands take effect in the order submitted. Otherwise a stream keeps one write in flight.
  bool ordered = false;
  // Commands that may be in flight; further ones wait in the port.
  unsigned max_in_flight = 1;
  // Of these, how many may block in the drive (Command::may_block).
  unsigned max_blocking = 1;
  // Commands that may be given up on, because the drive never completes them, before new connections are
  // refused. Each keeps its memory and, with a kernel driver, a tag and a thread until the controller resets.
  unsigned max_abandoned = 8;
  // Reads of one relay that may be in flight.
  unsigned max_reads_per_stream = 1;
};

class PortClient {
 public:
  // Every completion that was at hand has been delivered: the time to answer programs, once for all.
  virtual void on_batch_end() = 0;

 protected:
  ~PortClient() = default;
};

class CommandPort {
 public:
  virtual ~CommandPort() = default;

  void attach(PortClient* client) { client_ = client; }

  // Places a command; the drive looks at it with the next ring(). No error: whatever goes wrong is the
  // command's completion.
  virtual void submit(Command& command) = 0;
  // Hands over what was placed. Completions may be delivered before it returns, but never from within a call
  // that a completion made.
  virtual void ring() = 0;
  // Ends the port: nothing completes any more. True: no command is with the drive, so their memory may be
  // used again. False: some never came back, and theirs may still be written to.
  virtual bool stop() = 0;
  virtual PortTraits traits() const = 0;
  virtual std::string describe() const = 0;  // "emulated drive", "ioctl passthrough"
  // What it has done wrong on purpose, "resets 3, lost 0, ..."; empty: that is not its purpose.
  virtual std::string faults_text() const { return {}; }
  // Of a drive that lives in this process and ends with it. Others keep what they have taken.
  virtual Delivery delivery() const { return {}; }

 protected:
  PortClient* client_ = nullptr;
};

}  // namespace nvsock
