// One stream of the second generation on the host: states, credit, and what it has to send.
//
// Theory of operation. A stream never sends: it lists itself with its owner, and its turn comes when a batch
// is made. emit() then appends what is due, in this order: OPEN alone, WINDOW, DATA as far as the drive's
// credit goes, and behind the last byte FIN or RESET. on_frame() takes what the drive sends. Credit goes back
// to the drive as the program reads, in steps of half a window; a stream that nobody reads costs its window
// and no more.
//
// A datagram stream outlives its flow in the drive: when the drive forgets the flow, because it was quiet for
// long or because the drive lost the session, the stream sleeps, and the next datagram opens another flow
// under a new number. The program sees nothing of it.
//
// Threads: event loop only. Nothing blocks. Programs touch the Stream; only the owner touches the rest.
#pragma once

#include <memory>
#include <vector>

#include "libnvsock/base/clock.hpp"
#include "libnvsock/host/dialect.hpp"
#include "libnvsock/host/session_v2.hpp"
#include "libnvsock/socket/stream.hpp"

namespace nvsock {

class StreamV2;

// Who makes, lists and deletes streams, and puts what they have to send into batches: the dialect.
class StreamOwnerV2 {
 public:
  // What all streams of an owner have in common.
  struct Shared {
    StreamOwnerV2& owner;
    Clock& clock;
    BufferPool& pages;
    DialectCounters& counters;
    const Log& log;
    std::chrono::seconds connect_timeout;
    std::chrono::seconds drain_timeout;  // for accepted bytes after release()
    uint32_t window;                     // bytes the drive may be ahead of the reader, at first
    uint32_t largest_window;             // and of one that keeps up
    size_t largest_datagram;             // that fits into a batch
  };

  // The stream has something to send: emit() is called when its turn comes. No more than once in the line.
  virtual void list_ready(StreamV2& stream) = 0;
  // Lets those in line send now; or, while streams are told of a batch, together when all have been told. May
  // delete the stream that calls: its last act.
  virtual void send_ready() = 0;
  // When the batch ends its program is told, or, if done(), the stream deleted.
  virtual void list_changed(StreamV2& stream) = 0;
  // Does at once what the end of a batch does. May delete the stream that calls: its last act.
  virtual void settle() = 0;
  // A number to open the stream under, which frames for it come with until free_number(). 0: there is none
  // now.
  virtual uint32_t take_number(StreamV2& stream) = 0;
  // The stream that has this number is closed, and sends nothing more under it. Frames that still come find
  // nobody.
  virtual void free_number(uint32_t number) = 0;
  // Deletes the stream that calls.
  virtual void destroy(StreamV2& stream) = 0;

 protected:
  ~StreamOwnerV2() = default;
};

class StreamV2 final : public Stream {
 public:
  // One that the host opens. It is to be listed as ready.
  StreamV2(const StreamOwnerV2::Shared& shared, uint64_t id, const Endpoint& peer, StreamObserver* observer);
  // One that the drive accepted, under a number that the owner knows.
  StreamV2(const StreamOwnerV2::Shared& shared, uint64_t id, uint32_t number, const Endpoint& peer,
           const Addresses& addresses, uint32_t credit);

  void abort(int code) override;

  // --- for the owner alone ---

  // In which of the owner's lines the stream stands. The owner's, kept here so that it needs no table.
  struct Listed {
    bool ready = false;
    bool changed = false;
  };
  Listed listed;

  bool has_output() const;
  enum class Emitted : uint8_t {
    all,   // nothing more to send now
    more,  // it had its turn; another one later
    none,  // the next frame does not fit into what is left of the batch
  };
  // Appends what the stream has to send, DATA at most `quantum` bytes, and notes in `sent` what on_sent() is
  // to be told of. Deletes nothing.
  Emitted emit(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent, size_t quantum);
  // The drive has these bytes.
  void on_sent(const SessionV2::Sent& sent);
  // A frame with the stream's number, in order. False: it breaks a rule of section 7. Deletes nothing.
  bool on_frame(const relay_v2::Frame& frame, const BufferRef& buffer);
  // The session is lost. True: the drive never heard of the stream, which keeps its place and leaves with the
  // next session. False: it has ended or sleeps. Deletes nothing.
  bool outlives_session(int error);
  // The batch is over. The program may release the stream.
  void tell() { notify(); }
  // Released, and nothing is left to send or to come: to be deleted.
  bool done() const { return released_ && phase_ == Phase::closed; }

  // The end of the program, as Dialect has it.
  void finish();
  void give_up();
  uint64_t undelivered() const { return released_ && !cut_ ? unsent_ : 0; }

 private:
  enum class Phase : uint8_t {
    // By the constructor and wake_up(). OPEN waits for a batch, the stream stands in line. The drive has not
    // heard of it, number_ is 0: no frame may come; receive_credit_ is what OPEN will grant, send_credit_ is
    // 0.
    unsent,
    // By emit_open(). number_ is taken. OPENED or RESET comes, nothing else may. No DATA is sent.
    opening,
    // By on_opened(), and from the start of one the drive accepted. Both credits count. Each direction moves
    // until its FIN (fin_sent_, fin_came_); after both, closed.
    open,
    // By fall_asleep(), datagrams only. The drive has no flow: number_ is 0 and both credits mean nothing,
    // nothing may be emitted. The next datagram wakes it up; released, it is deleted at once.
    asleep,
    // By emit() with RESET, by the second FIN, by a RESET that came, by a lost session, or by abort() of one
    // that was unsent. number_ is 0, nothing is sent any more; frames that still come find nobody. Bytes that
    // came before stay readable.
    closed,
  };

  void on_room_to_receive() override;
  void send_queued() override { want_to_send(); }
  void on_shutdown() override { want_to_send(); }
  void release() override;
  BufferRef take_page() override { return shared_.pages.take(); }

  void want_to_send();
  Emitted emit_open(relay_v2::BatchWriter& batch);
  bool emit_data(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent, size_t quantum);
  bool emit_datagrams(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent, size_t quantum);
  bool may_send() const;  // what is queued, or some of it
  bool owes_credit() const;
  uint32_t unreturned() const;  // credit to give back to the drive
  uint32_t unread() const;      // of it, what the program has not read

  void on_opened(const relay_v2::Frame& frame);
  bool on_data(const relay_v2::Frame& frame, const BufferRef& buffer);
  bool on_datagram(const relay_v2::Frame& frame, const BufferRef& buffer);
  void on_reset(uint32_t error);
  void on_flow_reset(uint32_t error);
  void close();
  void free_number();
  void fall_asleep();
  void wake_up();
  void break_off(int error);
  void connect_expired();
  void drain_expired();
  void log(LogLevel level, const std::string& text) const {
    if (shared_.log) shared_.log(level, text);
  }
  StreamOwnerV2& owner() const { return shared_.owner; }

  Phase phase_ = Phase::unsent;
  bool released_ = false;
  bool fin_sent_ = false;
  bool fin_came_ = false;
  uint32_t number_ = 0;          // in frames; of datagram streams: of the newest flow; 0: none
  uint32_t flow_ = 0;            // of datagram streams: how many there were before
  uint32_t window_;              // bytes the drive may be ahead of the reader
  uint32_t reset_with_ = 0;      // errno the drive is told with RESET; 0: an orderly end, of released streams
  uint32_t send_credit_ = 0;     // bytes the drive still takes
  uint32_t receive_credit_ = 0;  // bytes the drive may still send
  const StreamOwnerV2::Shared& shared_;
  std::unique_ptr<Clock::Timer> timer_;  // while connecting or draining
};

}  // namespace nvsock
