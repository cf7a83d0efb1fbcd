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
//  - A descriptor is given away as soon as it is closed, and commands name nothing else. On a port that keeps
//    no order, a command that is passed by the close of its relay acts on the next owner's connection if an
//    open arrives between the two. What waits in a port is kept from that (CommandsV1::room_for_read); for
//    what is on its way the host can do nothing.
//  - No half-close, no IPv6, no names.
//
// Threads: event loop only. No call blocks.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "libnvsock/base/clock.hpp"
#include "libnvsock/host/commands_v1.hpp"
#include "libnvsock/host/dialect.hpp"
#include "libnvsock/host/stream_v1.hpp"
#include "libnvsock/relay/v1.hpp"

namespace nvsock {

struct DialectV1Options {
  unsigned relays = relay_v1::shipped_relays;  // how many the drive is said to have
  std::chrono::seconds connect_timeout{130};   // Linux's own connect gives up after 127 s (tcp_syn_retries 6)
  std::chrono::seconds drain_timeout{30};      // for accepted bytes after the last close
  Log log;
};

class DialectV1 final : public Dialect, private CommandsV1::Owner, private StreamOwnerV1 {
 public:
  DialectV1(Clock& clock, CommandPort& port, DialectV1Options options);

  Result<StreamHandle> connect(const Endpoint& endpoint, StreamObserver* observer) override;
  bool drained() const override { return counters_.streams_now == 0; }
  void finish() override;
  Undelivered undelivered() const override;
  void give_up() override;
  std::string_view name() const override { return "v1"; }
  unsigned max_streams() const override { return capacity_; }
  Stream* find_stream(uint64_t id) const override;
  void for_each_stream(const std::function<void(const Stream&)>& visit) const override;
  void on_batch_end() override;

 private:
  // --- of the commands ---
  void on_done(CommandV1& command) override;

  // --- of the streams ---
  void list_changed(StreamV1& stream) override;
  void list_starved(StreamV1& stream) override;
  void settle() override { on_batch_end(); }
  void destroy(StreamV1& stream) override;
  void relay_taken() override { shortages_ += ++counters_.streams_now > options_.relays; }
  uint64_t shortages() const override { return shortages_; }
  void relay_freed() override;
  void close_sent() override { ++closing_; }
  void close_done() override;
  void close_given_up() override;
  void drive_gone(int error) override;

  StreamV1* find(uint64_t id) const;
  void on_orphan_done(CommandV1& command);
  bool relay_free() const { return counters_.streams_now < capacity_; }
  void start_waiting();
  void feed_starved();
  void end_quiet_streams();
  void log(LogLevel level, const std::string& text) const {
    if (options_.log) options_.log(level, text);
  }

  const DialectV1Options options_;
  CommandsV1 commands_;  // destroyed after the streams that use it
  const Shared shared_;
  const unsigned capacity_;  // streams at a time: what the drive has, and the port can keep reads waiting for
  std::unordered_map<uint64_t, std::unique_ptr<StreamV1>> streams_;
  uint64_t next_id_ = 1;
  uint64_t shortages_ = 0;
  unsigned closing_ = 0;           // relays that a close is on its way to free
  std::deque<uint64_t> waiting_;   // opens held back until such a relay is free
  std::vector<uint64_t> changed_;  // streams to tell when the batch ends
  std::vector<uint64_t> telling_;  // those being told; a member to keep its memory
  std::vector<uint64_t> starved_;  // streams whose reads find no room
  std::unique_ptr<Clock::Timer> quiet_timer_;
  bool lost_ = false;  // the controller is gone for good
};

}  // namespace nvsock
