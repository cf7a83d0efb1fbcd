// The way between host and drive, with all that may happen on it (libnvsock/port/fault_port.hpp), watched
// from both sides.
#pragma once

#include <functional>
#include <set>

#include "csd/base/completion_queue.hpp"
#include "csd/v2/session_table.hpp"
#include "libnvsock/port/fault_port.hpp"
#include "tests/sim/random.hpp"
#include "tests/sim/referee.hpp"
#include "tests/sim/story.hpp"

namespace nvsock::sim {

// The drive's side: what it executes and completes.
class SimDrive final : public FallibleDrive, private csd::CompletionQueue {
 public:
  SimDrive(Clock& clock, csd::ServiceFactory& services, Random random, Story& story, Referee& referee,
           csd::SessionTableOptions options);

  void submit(Command& command) override;
  void ring() override { flush(); }
  void reset(bool restart) override;
  bool stop() override { return true; }
  PortTraits traits() const override;
  std::string describe() const override { return "simulated drive"; }

  const relay_v2::Epoch& epoch() const { return options_.epoch; }
  const csd::SessionTable& table() const { return *table_; }
  // Ends the session made last behind the host's back, as if somebody else had detached it.
  void end_session();

 private:
  void start();
  void post(Command& command) override;
  void flush() override;

  Clock& clock_;
  csd::ServiceFactory& services_;
  Random random_;
  Story& story_;
  Referee& referee_;
  csd::SessionTableOptions options_;
  std::unique_ptr<csd::SessionTable> table_;
  std::set<const Command*> executing_;
  CommandQueue completed_;
  uint32_t handle_ = 0;
};

// The host's side: what it submits and is told.
class SimPort final : public FaultPort {
 public:
  static constexpr unsigned max_in_flight = 16;

  SimPort(Clock& clock, Random random, Story& story, std::chrono::seconds lease,
          std::unique_ptr<SimDrive> drive)
      : FaultPort(clock, random, std::move(drive)), clock_(clock), story_(story), lease_(lease) {}

  std::function<void()> when_live;  // after a hard fault

  void submit(Command& command) override;

  // When the host last had heard of nothing that succeeded for about a lease: it may have given the session
  // up.
  Clock::TimePoint silent_until() const { return silent() ? clock_.now() : silent_until_; }
  unsigned silences() const { return silences_ + silent(); }  // how often that was
  uint64_t commands() const { return commands_; }

 private:
  void on_fault(const char* what, const Command& command) override;
  void on_completion(const Command& command) override;
  void on_live() override;
  bool silent() const { return clock_.now() - heard_ > lease_ - std::chrono::seconds(1); }

  Clock& clock_;
  Story& story_;
  const std::chrono::seconds lease_;
  std::set<const Command*> submitted_;
  uint64_t commands_ = 0;
  Clock::TimePoint heard_{};
  Clock::TimePoint silent_until_ = Clock::TimePoint::min();
  unsigned silences_ = 0;
};

}  // namespace nvsock::sim
