// One stream of the first generation: a relay descriptor and the commands in flight for it.
//
// Theory of operation. `open` gives a descriptor. From then on a few `read` commands wait in the drive
// and the send queue turns into `write` commands of up to 4096 bytes. The drive serves the reads of one
// relay in the order they were submitted, but completions may pass each other, so a read that completed
// early is held back until all older ones have. The number of waiting reads grows while the drive fills
// all of them at once and shrinks when it does not: a bulk transfer gets batches, an idle stream keeps
// four pages.
#pragma once

#include "libnvsock/host/dialect_v1.hpp"

namespace nvsock {

class StreamV1 final : public Stream {
 public:
  StreamV1(DialectV1& dialect, uint64_t id, const Endpoint& peer, StreamObserver* observer);

  void abort(int code) override;

 private:
  friend class DialectV1;

  enum class Phase : uint8_t {
    waiting,  // connect() found all relays taken and one closing; nothing sent
    opening,  // the open command is in flight; a relay is taken
    open,     // descriptor_ is valid; reads and writes flow
    closing,  // the close command is in flight; no further command may use descriptor_
    closed,   // the relay is free or given up; late completions belong to nobody
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
  BufferRef take_page() override { return dialect_.pages_.take(); }

  CommandV1& make_command(CommandV1::Kind kind);
  void start_open();
  void fetch();
  void on_done(CommandV1& command);
  void on_open_done(CommandV1& command);
  void on_read_done(CommandV1& command);
  void on_write_done(CommandV1& command);
  void deliver(CommandV1& command);
  void on_batch_end();
  void break_off(int code);  // the connection failed: tell the program, free the relay
  void close_when_sent();
  void send_close();
  void on_commands_gone();
  void arm(Clock::Duration after, void (StreamV1::*expired)());
  void connect_expired();
  void drain_expired();
  void abandon();

  DialectV1& dialect_;
  std::unique_ptr<Clock::Timer> timer_;  // one deadline at a time: connect, drain, then abandon
  Phase phase_ = Phase::waiting;
  bool released_ = false;  // the owner let go; nobody is told anything any more
  bool changed_ = false;   // listed in dialect_.changed_
  bool close_pending_ = false;
  uint32_t descriptor_ = 0;
  unsigned in_flight_ = 0;  // commands of all kinds
  unsigned reads_ = 0;      // reads, those held back for an older one included
  unsigned writes_ = 0;     // writes in flight
  unsigned reads_wanted_ = least_reads;
  unsigned filled_ = 0;  // reads that completed in this batch
  CommandV1* oldest_read_ = nullptr;
  CommandV1* newest_read_ = nullptr;
  Clock::TimePoint opening_since_{};
  Clock::TimePoint heard_{};  // the newest read was submitted
};

}  // namespace nvsock
