// A listener of the second generation on the host. docs/relay-protocol.md section 7.
//
// Theory of operation. It is configuration, and outlives sessions: whenever the drive has lost it or refused
// it, it asks again, each time under a number nobody had. Answers to an earlier attempt thus find nobody.
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
  virtual uint32_t take_number() = 0;  // odd, of nobody before
  // Its number has something to send: emit() is called when its turn comes.
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
  ListenerV2(ListenerOwnerV2& owner, Clock& clock, const Endpoint& where, uint32_t backlog,
             ListenerObserver* observer);

  // --- for the owner alone ---

  uint32_t number() const { return number_; }  // of this attempt
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
    // By ask(). LISTEN waits for a batch. The drive has not heard of number_: no frame may come.
    unsent,
    // By emit(). LISTENING or RESET comes.
    asked,
    // By LISTENING. ACCEPTED may come, and RESET when the drive cannot go on.
    listening,
    // By RESET. number_ means nothing any more; the timer runs, and asks again.
    refused,
    // By release() of one that the drive has heard of. RESET waits for a batch and deletes it. Nobody is told
    // anything any more; observer_ may be gone.
    released,
  };

  void release() override;
  void ask();  // takes a number nobody had and stands in line with it

  ListenerOwnerV2& owner_;
  const uint32_t backlog_;
  ListenerObserver* const observer_;
  const std::unique_ptr<Clock::Timer> timer_;
  uint32_t number_ = 0;
  Phase phase_ = Phase::unsent;
};

}  // namespace nvsock
