// One stream of the first generation: a relay descriptor and the commands in flight for it.
//
// Theory of operation. `open` gives a descriptor. From then on a few `read` commands wait in the drive
// and the send queue turns into `write` commands of up to 4096 bytes. The drive serves the reads of one
// relay in the order they were submitted, but completions may pass each other, so a read that completed
// early is held back until all older ones have. The number of waiting reads grows while the drive fills
// all of them at once and shrinks when it does not: a bulk transfer gets batches, an idle stream keeps
// four pages.
//
// Threads: event loop only. Nothing blocks. Programs touch the Stream; only the owner touches the rest.
#pragma once

#include <memory>

#include "libnvsock/base/clock.hpp"
#include "libnvsock/host/commands_v1.hpp"
#include "libnvsock/host/dialect.hpp"
#include "libnvsock/socket/stream.hpp"

namespace nvsock {

class StreamV1;

// Who makes, lists and deletes streams, and shares the drive's relays out among them: the dialect.
class StreamOwnerV1 {
 public:
  // What all streams of an owner have in common.
  struct Shared {
    StreamOwnerV1& owner;
    Clock& clock;
    CommandsV1& commands;
    DialectCounters& counters;
    const Log& log;
    unsigned relays;                       // how many the drive is said to have
    std::chrono::seconds connect_timeout;  // for `open`
    std::chrono::seconds drain_timeout;    // for accepted bytes after release()
  };

  // When the batch ends its program is told, or, released and closed, the stream deleted.
  virtual void list_changed(StreamV1& stream) = 0;
  // It has reads to send for which there is no room: fetch() is called when a batch ends.
  virtual void list_starved(StreamV1& stream) = 0;
  // Does at once what the end of a batch does. May delete the stream that calls: its last act.
  virtual void settle() = 0;
  // Deletes the stream that calls.
  virtual void destroy(StreamV1& stream) = 0;

  // A stream has a relay from when its `open` is sent until that failed, or its `close` completed.
  virtual void relay_taken() = 0;
  // How often that made more of them than the drive is said to have. An `open` during which it happened may
  // have found none; the number of those now does not tell, because a close may have freed one since.
  virtual uint64_t shortages() const = 0;
  virtual void relay_freed() = 0;
  // `close` was sent: opens that find no relay wait for this one.
  virtual void close_sent() = 0;
  // It completed, and the relay is free; or nobody waits for it any more, and the relay may stay taken for
  // good. The second is a last act, because it may end streams.
  virtual void close_done() = 0;
  virtual void close_given_up() = 0;

  // The controller is gone for good: every connection ends with `error`.
  virtual void drive_gone(int error) = 0;

 protected:
  ~StreamOwnerV1() = default;
};

class StreamV1 final : public Stream {
 public:
  // Waits for start_open(), within the connect timeout.
  StreamV1(const StreamOwnerV1::Shared& shared, uint64_t id, const Endpoint& peer, StreamObserver* observer);

  void abort(int code) override;
  bool half_closes() const override { return false; }

  // --- for the owner alone ---

  // In which of the owner's lists the stream stands. The owner's, kept here so that it needs no table.
  struct Listed {
    bool changed = false;
    bool starved = false;
  };
  Listed listed;

  bool waiting() const { return phase_ == Phase::waiting; }
  // Completions that still come are nobody's: their commands were given up on.
  bool closed() const { return phase_ == Phase::closed; }
  // The drive has held its reads since then or before.
  bool quiet_since(Clock::TimePoint then) const {
    return phase_ == Phase::open && reads_ > 0 && heard_ <= then;
  }

  void start_open();  // REQUIRES: waiting()
  // A command of the stream has completed. REQUIRES: not closed(). Deletes nothing.
  void on_done(CommandV1& command);
  // The connection failed: its program is told when the batch ends, and the relay is freed. May delete the
  // stream, but not from within a completion.
  void end(int code);
  // The batch is over: judges how many reads are wanted, and tells the program, which may release the stream.
  void tell();
  // Released, and nothing is with the drive any more: to be deleted.
  bool done() const { return released_ && phase_ == Phase::closed; }
  // The end of the program, as Dialect has it.
  void finish();
  void give_up();
  uint64_t undelivered() const { return released_ && !cut_ ? unsent_ : 0; }
  // Sends as many reads as are wanted and find room.
  void fetch();

 private:
  enum class Phase : uint8_t {
    // By the constructor. connect() found all relays taken and one closing; nothing was sent. The timer is
    // the connect timeout. Released or timed out, no relay is touched.
    waiting,
    // By start_open(). `open` is in flight and a relay counts as taken. Released, the stream waits for the
    // answer, because a relay that was opened must be closed.
    opening,
    // By a successful `open`. descriptor_ is valid; reads and writes flow. Ends when everything accepted was
    // written and nobody wants more, or by the drain bound.
    open,
    // By send_close(). `close` is in flight; no further command may use descriptor_, which the drive gives
    // away again. The timer is abandon_after. Commands in flight are still waited for.
    closing,
    // When the last command came back, an `open` failed, or abandon(). No command is the stream's any more
    // (in_flight_ is 0, and there are no reads); the relay is free, or given up.
    closed,
  };

  // Reads kept in the drive: at least this many, at most as many as the read-ahead window holds.
  static constexpr unsigned least_reads = 4;
  static constexpr unsigned receive_pages = 256;  // in the read-ahead and in waiting reads: 1 MiB
  // Writes in flight on an ordered port; more bytes wait in the queue and share commands.
  static constexpr unsigned most_writes = 256;

  void on_room_to_receive() override { fetch(); }
  void send_queued() override;
  void on_shutdown() override { close_when_sent(); }
  void release() override;
  BufferRef take_page() override { return shared_.commands.take_page(); }

  void submit(CommandV1& command);
  void on_open_done(CommandV1& command);
  void on_read_done(CommandV1& command);
  void on_write_done(CommandV1& command);
  void deliver(CommandV1& command);
  void break_off(int code);
  void close_when_sent();
  void send_close();
  void on_commands_gone();
  void arm(Clock::Duration after, void (StreamV1::*expired)());
  void connect_expired();
  void drain_expired();
  void abandon();
  void log(LogLevel level, const std::string& text) const {
    if (shared_.log) shared_.log(level, text);
  }
  StreamOwnerV1& owner() const { return shared_.owner; }

  const StreamOwnerV1::Shared& shared_;
  std::unique_ptr<Clock::Timer> timer_;  // one deadline at a time: connect, drain, then abandon
  Phase phase_ = Phase::waiting;
  bool released_ = false;  // the owner let go; nobody is told anything any more
  bool close_pending_ = false;
  uint32_t descriptor_ = 0;
  unsigned in_flight_ = 0;  // commands of all kinds
  unsigned reads_ = 0;      // reads, those held back for an older one included
  unsigned writes_ = 0;     // writes in flight
  unsigned reads_wanted_ = least_reads;
  unsigned filled_ = 0;  // reads that completed in this batch
  CommandV1* oldest_read_ = nullptr;
  CommandV1* newest_read_ = nullptr;  // valid while there is an oldest one
  uint64_t shortages_before_ = 0;     // `open` was sent
  Clock::TimePoint opening_since_{};
  Clock::TimePoint heard_{};  // the newest read was submitted
};

}  // namespace nvsock
