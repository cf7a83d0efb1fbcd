// Streams that were closed in good order and still have bytes for their services (section 7, RESET with
// errno 0). They belong to no session any more. Limits: 1024 streams (the oldest is aborted for a further
// one) and SessionTableOptions::linger. Threads: event loop only.
#pragma once

#include <memory>

#include "csd/v2/session_stream.hpp"
#include "libnvsock/base/clock.hpp"

namespace nvsock::csd {

class LingerList final : private StreamOwner {
 public:
  static constexpr size_t max_streams = 1024;  // with the default window 256 MiB of bytes at most

  LingerList(Clock& clock, Clock::Duration patience)
      : clock_(clock), patience_(patience), timer_(clock.make_timer()) {}
  ~LingerList();

  void add(std::unique_ptr<SessionStream> stream);
  size_t size() const { return size_; }

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
  size_t size_ = 0;
  relay_v2::Counters unread_;
};

}  // namespace nvsock::csd
