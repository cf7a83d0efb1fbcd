// One session of the drive: batches that take effect exactly once, and the streams in them.
//
// docs/relay-protocol.md, sections 4 to 7. The session keeps at most tx window - 1 batches ahead of a missing
// one and rx window batches that the host has not acknowledged, and waits with at most rx window commands.
// Whoever holds it calls tx(), rx() and end(), and destroys it when it has ended. Threads: event loop only.
#pragma once

#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "csd/v2/session_stream.hpp"
#include "csd/v2/session_table.hpp"
#include "libnvsock/relay/stream_numbers.hpp"

namespace nvsock::csd {

class Session final : private StreamOwner, private Acceptor {
 public:
  // What all sessions of a drive share; outlives them.
  struct Surroundings {
    Clock& clock;
    ServiceFactory& services;
    CompletionQueue& completions;
    LingerList& lingering;
    BufferPool& large;
    BufferPool& small;
    const SessionTableOptions& options;
  };

  struct Identity {
    HostName host;  // whose it is
    relay_v2::SessionKey key;
    uint32_t features;  // in force
    Client client;      // unlike the handle, of no two sessions the same
  };

  Session(const Surroundings& surroundings, Identity identity);
  ~Session();

  const HostName& host() const { return identity_.host; }
  uint64_t handle() const { return identity_.key.handle; }
  bool is(const HostName& host, uint64_t handle) const {
    return identity_.key.handle == handle && identity_.host == host;
  }
  // Is an attach with this secret of who made the session?
  bool proves(const relay_v2::Secret& secret) const {
    return relay_v2::equal_secrets(secret, identity_.key.secret);
  }
  uint64_t datagrams_dropped() const { return counters_.datagrams_dropped; }
  Undelivered undelivered() const;  // of the streams it has

  // Section 5.1. False: the batch broke a rule; the command was completed, and the session must be ended.
  [[nodiscard]] bool tx(Command& command, const relay_v2::Call& call);
  void rx(Command& command, const relay_v2::Call& call);  // section 5.2
  // The host gave a sign of life.
  void touch() { used_ = around_.clock.now(); }
  // When the lease is over, should no command come.
  Clock::TimePoint lease_end() const;

  // Closes every stream, in good order (detach) or as resets, and fails the commands that wait.
  enum class End { orderly, abort };
  void end(End how);
  // Section 6: the commands that wait, those `whose` picks, are gone.
  void forget_commands(const std::function<bool(const Command&)>& whose);

 private:
  using Numbers = std::unordered_map<uint32_t, std::unique_ptr<Channel>>;

  // Bytes that must stay: a batch held until its turn comes, or kept until it is acknowledged.
  struct Bytes {
    BufferRef buffer;  // null: none
    uint32_t size = 0;
    std::span<const uint8_t> span() const { return {buffer.data(), size}; }
  };
  struct Waiting {
    Command* command = nullptr;  // null: none
    Clock::TimePoint deadline;
  };

  // Of 5.1.
  bool apply(std::span<const uint8_t> batch, uint64_t sequence);
  bool apply(const relay_v2::Frame& frame);
  bool open(const relay_v2::Frame& frame);
  bool listen(const relay_v2::Frame& frame);
  bool claim(uint32_t number);
  bool refuse(uint32_t number, int error);
  int no_room() const;  // for one more stream: the errno; 0: there is room
  void reset(Channel& channel, int error);
  bool was_used(uint32_t number) const;
  bool has(uint32_t feature) const { return (identity_.features & feature) != 0; }
  bool note_taken(uint32_t low);
  std::unique_ptr<Channel> take_out(Channel& channel);
  void close(Channel& channel);
  Bytes& held(uint64_t sequence) { return held_[sequence % held_.size()]; }

  // Of 5.2.
  Bytes& kept(uint64_t sequence) { return kept_[sequence % kept_.size()]; }
  Waiting& waiting(uint64_t sequence) { return waiting_[sequence % waiting_.size()]; }
  void repeat(Command& command, uint64_t sequence);
  void wait(Command& command, uint64_t sequence, std::chrono::milliseconds time);
  bool make_batches();  // true: completed at least one command
  void build(relay_v2::BatchWriter& batch);
  bool build_stats(relay_v2::BatchWriter& batch);
  uint64_t memory() const;
  bool build_control(relay_v2::BatchWriter& batch);
  void build_data(relay_v2::BatchWriter& batch);
  void arm(Clock::TimePoint deadline);
  void expire();
  void watch_flows();
  void expire_flows();

  void list_control(Channel& channel) override;
  void list_ready(SessionStream& stream) override;
  void settled(Channel& channel) override;
  relay_v2::Counters& counters() override { return counters_; }
  void accept(SessionListener& listener, std::unique_ptr<Service> service) override;

  void remove_if_done(Channel& channel);
  Bytes copy(std::span<const uint8_t> bytes);
  Bytes keep(const Command& command, std::span<const uint8_t> bytes);
  void complete(Command& command, uint16_t status, uint32_t dw0 = 0);

  const Surroundings around_;
  const Identity identity_;
  const Clock::TimePoint made_;
  Clock::TimePoint used_;

  uint64_t expected_ = 1;
  std::vector<Bytes> held_;  // by sequence modulo tx window

  uint64_t oldest_ = 1;           // the first batch that is kept; next_ if none is
  uint64_t next_ = 1;             // the next to make
  std::vector<Bytes> kept_;       // by sequence modulo rx window: oldest_ <= sequence < next_
  std::vector<Waiting> waiting_;  // the same: next_ <= sequence < oldest_ + rx window
  std::unique_ptr<Clock::Timer> timer_;
  Clock::TimePoint armed_for_ = Clock::TimePoint::max();

  std::unique_ptr<Clock::Timer> flow_timer_;  // runs while there are flows of datagrams
  bool flows_watched_ = false;

  List<Channel> control_;
  List<SessionStream> ready_;
  Numbers numbers_;
  uint32_t last_of_host_ = 0;  // the highest odd number used; 0: none
  relay_v2::StreamNumbers of_drive_{2};
  uint64_t taken_ = 0;  // the last of our batches that the host has taken, as far as it told
  size_t refused_ = 0;  // of numbers_, those that only wait to be told so
  const std::shared_ptr<LingerAccount> lingering_ = std::make_shared<LingerAccount>();
  uint64_t stats_due_ = 0;
  std::vector<uint8_t> scratch_;  // one datagram; empty until it is needed
  relay_v2::Counters counters_;
};

}  // namespace nvsock::csd
