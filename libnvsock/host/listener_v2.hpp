// A listener of the second generation on the host. docs/relay-protocol.md section 7.
//
// Theory of operation. It is configuration, and outlives sessions: whenever the drive has lost it or refused
// it, it asks again, each time under another number. Answers to an earlier attempt thus find nobody.
//
// Threads: event loop only. Nothing blocks. Programs hold the Listener; only the owner touches the rest.
#pragma once

#include <memory>

#include "libnvsock/base/clock.hpp"
#include "libnvsock/relay/v2.hpp"
#include "libnvsock/socket/listener.hpp"

namespace nvsock {

class ListenerV2;

// Who makes and deletes listeners, and puts what they have to send into batches: the dialect.
class ListenerOwnerV2 {
 public:
  // A number to ask under, which frames for it come with until free_number(). 0: there is none now.
  virtual uint32_t take_number() = 0;
  virtual void free_number(uint32_t number) = 0;
  // It has something to send: emit() is called when its turn comes.
  virtual void list_ready(ListenerV2& listener) = 0;
  // Lets those in line send now, or with what else comes of this batch. May delete the listener that calls:
  // its last act.
  virtual void send_ready() = 0;
  // Its program is to be told, by tell_listening() or tell_failed(), when the batch ends.
  virtual void list_listening(ListenerV2& listener, const sockaddr_storage& address) = 0;
  virtual void list_failed(ListenerV2& listener, int error) = 0;
  // Deletes the listener that calls.
  virtual void destroy(ListenerV2& listener) = 0;

 protected:
  ~ListenerOwnerV2() = default;
};

class ListenerV2 final : public Listener {
 public:
  // Lists itself as ready.
  ListenerV2(ListenerOwnerV2& owner, uint64_t id, Clock& clock, const Endpoint& where, uint32_t backlog,
             ListenerObserver* observer);

  // --- for the owner alone ---

  uint64_t id() const { return id_; }          // of no stream and no other listener, ever
  uint32_t number() const { return number_; }  // of this attempt; 0: the drive does not know it
  unsigned attempt() const { return attempt_; }
  // Its program let go; the drive is still to be told.
  bool released() const { return phase_ == Phase::released; }

  // Appends what is due. False: it does not fit into what is left of the batch. May delete the listener.
  bool emit(relay_v2::BatchWriter& batch);
  // A frame with the listener's number. False: it breaks a rule of section 7. Deletes nothing.
  bool on_frame(const relay_v2::Frame& frame);
  // The drive forgot it. REQUIRES: not released. Deletes nothing.
  void on_session_lost(int error);

  // Tell the program, unless it let go; it may let go in the call.
  void tell_listening(const sockaddr_storage& address);
  void tell_failed(int error);
  void tell_accepted(StreamHandle& stream);

 private:
  enum class Phase : uint8_t {
    // By ask(). LISTEN waits for a batch. number_ is 0.
    unsent,
    // By emit(). number_ is taken. LISTENING or RESET comes.
    asked,
    // By LISTENING. ACCEPTED may come, and RESET when the drive cannot go on.
    listening,
    // By RESET. number_ is 0; the timer runs, and asks again.
    refused,
    // By release() of one that the drive has heard of. RESET waits for a batch and deletes it. Nobody is told
    // anything any more; observer_ may be gone.
    released,
  };

  void release() override;
  void ask();  // stands in line, for another number
  void refuse(int error);

  ListenerOwnerV2& owner_;
  const uint64_t id_;
  const uint32_t backlog_;
  ListenerObserver* const observer_;
  const std::unique_ptr<Clock::Timer> timer_;
  unsigned attempt_ = 0;
  uint32_t number_ = 0;
  Phase phase_ = Phase::unsent;
};

}  // namespace nvsock
