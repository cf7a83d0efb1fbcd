// A listener of the second generation on the host. docs/relay-protocol.md section 7.
#pragma once

#include "libnvsock/host/dialect_v2.hpp"

namespace nvsock {

class ListenerV2 final : public Listener {
 public:
  ListenerV2(DialectV2& dialect, const Endpoint& where, uint32_t backlog, ListenerObserver* observer);

 private:
  friend class DialectV2;

  enum class Phase : uint8_t {
    unsent,     // LISTEN waits for a batch
    asked,      // LISTEN was sent; LISTENING or RESET comes
    listening,  // ACCEPTED may come
    refused,    // RESET came: the number means nothing any more, the timer runs
    released,   // RESET waits for a batch; nobody is told anything any more
  };

  void release() override;

  // Takes a number nobody had and stands in line with it.
  void ask();
  bool emit(relay_v2::BatchWriter& batch);  // false: does not fit into what is left of the batch
  bool on_frame(const relay_v2::Frame& frame);
  void on_session_lost(int error);

  DialectV2& dialect_;
  const uint32_t backlog_;
  ListenerObserver* const observer_;
  const std::unique_ptr<Clock::Timer> timer_;
  uint32_t number_ = 0;  // of this attempt
  Phase phase_ = Phase::unsent;
};

}  // namespace nvsock
