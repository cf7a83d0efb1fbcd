// The commands of the first generation: made as the firmware wants them, lent to the drive, used again.
//
// A command and its page are the drive's from submit() until it completes, which may be never: one published
// firmware version forgets the reads of a connection that its peer reset. Such a command is used for nothing
// else, ever; when the port ends without having got it back, it is leaked on purpose. Everything else is
// pooled: as many commands exist as were in flight at once, and up to 4 MiB of pages are kept.
//
// Threads: event loop only. No call blocks.
#pragma once

#include <memory>
#include <vector>

#include "libnvsock/base/buffer.hpp"
#include "libnvsock/host/dialect.hpp"
#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/relay/v1.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock {

class CommandsV1;

// A command and what it carries. Fields of its own are for who was told of its completion, but `newer`.
struct CommandV1 : Command {
  enum class Kind : uint8_t { open, close, read, write };
  Kind kind{};
  bool with_drive = false;  // from submit() to `done`
  bool arrived = false;     // reads: completed, held back for an older one
  CommandsV1* home = nullptr;
  uint64_t stream = 0;         // id; the stream may be gone when the completion comes
  Slice slice;                 // the memory at `data`, kept alive
  CommandV1* newer = nullptr;  // the stream's: its reads, oldest first
};

class CommandsV1 {
 public:
  class Owner {
   public:
    // The drive has completed it. To be given back with recycle().
    virtual void on_done(CommandV1& command) = 0;

   protected:
    ~Owner() = default;
  };

  // Counts in `counters` what is submitted and in flight.
  CommandsV1(CommandPort& port, DialectCounters& counters, Owner& owner);
  // Ends the port.
  ~CommandsV1();
  CommandsV1(const CommandsV1&) = delete;
  CommandsV1& operator=(const CommandsV1&) = delete;

  // Each for the stream of this id. They are the caller's until submitted.
  CommandV1& make_open(uint64_t stream, const Endpoint& peer);
  CommandV1& make_close(uint64_t stream, uint32_t descriptor);
  CommandV1& make_read(uint64_t stream, uint32_t descriptor);
  // Sends the bytes from where they lie. REQUIRES: not empty, at most relay_v1::max_write.
  CommandV1& make_write(uint64_t stream, uint32_t descriptor, Slice bytes);

  // Lends the command to the drive, which looks at it with the next ring(). Completions may come before
  // ring() returns, but never from within a call that a completion made.
  void submit(CommandV1& command);
  void ring() { port_.ring(); }
  void recycle(CommandV1& command);  // REQUIRES: not with the drive

  // Would a read go to the drive at once? One that waited in the port could be overtaken by the close of its
  // relay, and then find the descriptor given to another connection, whose bytes it would take.
  bool room_for_read() const {
    return counters_.in_flight_now < traits_.max_in_flight && blocking_ < traits_.max_blocking;
  }

  const PortTraits& traits() const { return traits_; }
  BufferRef take_page() { return pages_.take(); }

 private:
  CommandV1& make(uint64_t stream, CommandV1::Kind kind);
  void take_page_for(CommandV1& command);

  CommandPort& port_;
  const PortTraits traits_;
  DialectCounters& counters_;
  Owner& owner_;
  BufferPool pages_;
  std::vector<std::unique_ptr<CommandV1>> commands_;  // every one ever made
  std::vector<CommandV1*> free_;
  unsigned blocking_ = 0;  // reads with the drive
};

}  // namespace nvsock
