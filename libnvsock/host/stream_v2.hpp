// One stream of the second generation on the host: states, credit, and what it has to send.
//
// A datagram stream outlives its flow in the drive: when the drive forgets the flow, because it was quiet for
// long or because the drive lost the session, the stream sleeps, and the next datagram opens another flow
// under a new number. The owner sees nothing of it.
#pragma once

#include "libnvsock/host/dialect_v2.hpp"

namespace nvsock {

class StreamV2 final : public Stream {
 public:
  StreamV2(DialectV2& dialect, uint32_t number, const Endpoint& peer, StreamObserver* observer);
  // One that the drive accepted. `id`: unlike the number, of all sessions.
  StreamV2(DialectV2& dialect, uint64_t id, uint32_t number, const Endpoint& peer, const Addresses& addresses,
           uint32_t credit);

  void abort(int code) override;

 private:
  friend class DialectV2;

  enum class Phase : uint8_t {
    unsent,   // OPEN waits for a batch
    opening,  // OPEN was sent; OPENED or RESET comes
    open,     // both directions, until each has its FIN
    asleep,   // datagrams: the drive has no flow; the next datagram opens one
    closed,   // RESET was sent or came, or both FIN did; the number means nothing any more
  };

  void on_room_to_receive() override;
  void send_queued() override { want_to_send(); }
  void on_shutdown() override { want_to_send(); }
  void release() override;
  BufferRef take_page() override { return dialect_.pages_.take(); }

  void want_to_send();
  enum class Emitted : uint8_t {
    all,   // nothing more to send now
    more,  // it had its turn; another one later
    none,  // the next frame does not fit into what is left of the batch
  };
  // Appends what the stream has to send, DATA at most `quantum` bytes.
  Emitted emit(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent, size_t quantum);
  Emitted emit_open(relay_v2::BatchWriter& batch);
  bool emit_data(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent, size_t quantum);
  bool emit_datagrams(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent, size_t quantum);
  bool may_send() const;  // what is queued, or some of it
  bool has_output() const;
  bool owes_credit() const;
  uint32_t unreturned() const;  // credit to give back to the drive
  uint32_t unread() const;      // of it, what the owner has not read

  bool on_frame(const relay_v2::Frame& frame, const BufferRef& buffer);
  void on_opened(const relay_v2::Frame& frame);
  bool on_data(const relay_v2::Frame& frame, const BufferRef& buffer);
  bool on_datagram(const relay_v2::Frame& frame, const BufferRef& buffer);
  void on_reset(uint32_t error);
  void on_flow_reset(uint32_t error);
  void fall_asleep();
  void wake_up();
  void break_off(int error);
  uint64_t key() const { return number_ % 2 == 1 ? number_ : id(); }  // in the dialect's maps and lists
  void connect_expired();
  void drain_expired();

  DialectV2& dialect_;
  uint32_t number_;                      // in frames; of datagram streams: of the newest flow
  std::unique_ptr<Clock::Timer> timer_;  // while connecting or draining
  Phase phase_ = Phase::unsent;
  bool released_ = false;
  bool ready_ = false;    // in the dialect's line
  bool changed_ = false;  // listed to be told
  bool fin_sent_ = false;
  bool fin_came_ = false;
  uint32_t window_;              // bytes the drive may be ahead of the reader
  uint32_t reset_with_ = 0;      // errno the drive is told with RESET; 0: an orderly end, of released streams
  uint32_t send_credit_ = 0;     // bytes the drive still takes
  uint32_t receive_credit_ = 0;  // bytes the drive may still send
};

}  // namespace nvsock
