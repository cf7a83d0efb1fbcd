// Streams that were closed in good order and still have bytes for their services (section 7, RESET with
// errno 0). They belong to no session any more, but to an account, which outlives the session that left them.
//
// None is given up for another, only when its time is over (SessionTableOptions::linger): the bytes were
// acknowledged. What accounts hold is bounded where it begins instead: a session with much on its account
// opens no further streams, and nobody attaches while many accounts are left over. Threads: event loop only.
#pragma once

#include <memory>

#include "csd/v2/session_stream.hpp"
#include "libnvsock/base/clock.hpp"
#include "libnvsock/base/undelivered.hpp"

namespace nvsock::csd {

// What the streams that one session has closed still hold.
struct LingerAccount {
  size_t streams = 0;
  uint64_t bytes = 0;  // undelivered when each was closed
  uint64_t lost = 0;   // bytes that no service took in time
  bool left = false;   // its session is over
};

class LingerList final : private StreamOwner {
 public:
  LingerList(Clock& clock, Clock::Duration patience)
      : clock_(clock), patience_(patience), timer_(clock.make_timer()) {}
  ~LingerList();

  // Takes over a stream that is closed; one that holds nothing ends at once.
  void add(std::unique_ptr<SessionStream> stream, const std::shared_ptr<LingerAccount>& account);
  // The session is over, and adds no more.
  void leave(LingerAccount& account);
  // Accounts whose sessions are over and that hold streams.
  size_t left() const { return left_; }
  Delivery delivery() const;

 private:
  void list_control(Channel&) override {}
  void list_ready(SessionStream&) override {}
  void settled(Channel& stream) override;
  relay_v2::Counters& counters() override { return unread_; }

  void remove(SessionStream& stream);
  void expire();

  Clock& clock_;
  const Clock::Duration patience_;
  std::unique_ptr<Clock::Timer> timer_;
  bool armed_ = false;
  List<SessionStream> streams_;  // oldest first; owns them
  size_t left_ = 0;
  Undelivered given_up_;
  relay_v2::Counters unread_;
};

}  // namespace nvsock::csd
