// The first generation on the host: one relay of the drive per stream, 4096 bytes a command.
//
// What the firmware cannot do shapes this file and stream_v1:
//  - It tells no causes. Status 06h to an open means "refused", unless all relays are in use (then ENFILE)
//    or the answer took as long as a TCP connect takes to time out (then ETIMEDOUT). A drive that does
//    name the cause (status code type 7h, the code an errno) is believed.
//  - Reads cannot be cancelled; closing the relay ends them, except after a reset by the peer, when one
//    published version never completes them. A stream waits `abandon_after` for its commands, then goes
//    without them: their memory stays lent to the drive, counted, and bounded by PortTraits.
//  - A write that finds the peer not reading stalls every command of the drive. Nothing on the host can
//    end that, so no command carries a short timeout: its expiry would reset the controller.
//  - No half-close, no IPv6, no names.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "libnvsock/base/clock.hpp"
#include "libnvsock/host/dialect.hpp"
#include "libnvsock/relay/v1.hpp"

namespace nvsock {

class DialectV1;
class StreamV1;

// A command of this dialect and what it carries. The dialect owns it; the drive holds it until `done`.
struct CommandV1 : Command {
  enum class Kind : uint8_t { open, close, read, write };
  Kind kind{};
  bool with_drive = false;  // from submit to done
  bool arrived = false;     // reads: completed, held back for an older one
  DialectV1* dialect = nullptr;
  uint64_t stream = 0;         // id; the stream may be gone when the completion comes
  Slice slice;                 // the memory at `data`, kept alive
  CommandV1* newer = nullptr;  // reads of one stream, oldest first
};

class DialectV1 final : public Dialect {
 public:
  DialectV1(Clock& clock, CommandPort& port, DialectOptions options);
  ~DialectV1() override;

  Result<StreamHandle> connect(const Endpoint& endpoint, StreamObserver* observer) override;
  bool drained() const override { return counters_.streams_now == 0; }
  std::string_view name() const override { return "v1"; }
  unsigned max_streams() const override { return capacity_; }
  Stream* find_stream(uint64_t id) const override;
  void for_each_stream(const std::function<void(const Stream&)>& visit) const override;
  void on_batch_end() override;

 private:
  friend class StreamV1;

  CommandV1& make_command(uint64_t stream, CommandV1::Kind kind);
  CommandV1& make_close(uint64_t stream, uint32_t descriptor);
  void submit(CommandV1& command);
  void on_done(CommandV1& command);
  void on_orphan_done(CommandV1& command);
  void recycle(CommandV1& command);
  void destroy(StreamV1& stream);

  void changed(StreamV1& stream);  // tells its observer when the batch ends
  // Opens take a relay when they are submitted and give it back when they fail or their close completes.
  bool relay_free() const { return counters_.streams_now < capacity_; }
  void relay_freed();
  void close_given_up();
  void start_waiting();
  void device_lost(int code);
  void end_quiet_streams();
  void log(LogLevel level, const std::string& text) const {
    if (options_.log) options_.log(level, text);
  }

  Clock& clock_;
  CommandPort& port_;
  const PortTraits traits_;
  const DialectOptions options_;
  const unsigned capacity_;  // streams at a time: what the drive has, and the port can keep reads waiting for
  BufferPool pages_;
  std::unordered_map<uint64_t, std::unique_ptr<StreamV1>> streams_;
  uint64_t next_id_ = 1;
  unsigned closing_ = 0;           // relays that a close is on its way to free
  std::deque<uint64_t> waiting_;   // opens held back until such a relay is free
  std::vector<uint64_t> changed_;  // streams to tell when the batch ends
  std::vector<uint64_t> telling_;  // those being told; a member to keep its memory
  std::vector<std::unique_ptr<CommandV1>>
      commands_;  // every one ever made: as many as were in flight at once
  std::vector<CommandV1*> free_commands_;
  std::unique_ptr<Clock::Timer> quiet_timer_;
  bool lost_ = false;  // the controller is gone for good
};

}  // namespace nvsock
