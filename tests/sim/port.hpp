// The way between host and drive, with all that may happen on it (libnvsock/port/fault_port.hpp), watched
// from both sides.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <vector>

#include "csd/base/completion_queue.hpp"
#include "csd/v2/session_table.hpp"
#include "libnvsock/port/fault_port.hpp"
#include "tests/sim/random.hpp"
#include "tests/sim/referee.hpp"
#include "tests/sim/story.hpp"

namespace nvsock::sim {

// Who has commands with the drive: a host's controller.
class Guest {
 public:
  virtual const csd::HostName& name() const = 0;
  // The drive has completed this command, which is told next.
  virtual void posted(Command& command) = 0;
  virtual void drive_restarted() = 0;

 protected:
  ~Guest() = default;
};

// The drive, for all its hosts: what it executes and completes.
class SimDrive final : private csd::CompletionQueue {
 public:
  SimDrive(Clock& clock, csd::ServiceFactory& services, Random random, Story& story,
           csd::SessionTableOptions options);

  void submit(Command& command, Guest& from);
  void flush() override;
  // The controller of this one is reset: its commands are forgotten.
  void forget(const Guest& from);
  // Everything is lost.
  void restart();

  std::vector<Guest*> guests;
  const relay_v2::Epoch& epoch() const { return options_.epoch; }
  const csd::SessionTable& table() const { return *table_; }

 private:
  struct Completed {
    Command* command;
    const Guest* from;
  };
  void start();
  void post(Command& command) override;

  Clock& clock_;
  csd::ServiceFactory& services_;
  Random random_;
  Story& story_;
  csd::SessionTableOptions options_;
  std::unique_ptr<csd::SessionTable> table_;
  std::map<const Command*, Guest*> executing_;
  std::deque<Completed> completed_;
};

// A host's controller, watched by its referee.
class SimController final : public FallibleDrive, private Guest {
 public:
  SimController(SimDrive& drive, Story& story, Referee& referee, csd::HostName name);
  ~SimController() override;

  void submit(Command& command) override;
  void ring() override { drive_.flush(); }
  void reset(bool restart) override;
  bool stop() override { return true; }
  PortTraits traits() const override;
  std::string describe() const override { return "simulated drive"; }

  // Ends the session made last behind the host's back, as if somebody else of that host had detached it.
  void end_session();
  uint64_t handle() const { return handle_; }  // of that one; 0: there was none
  const csd::HostName& name() const override { return name_; }

  std::function<void()> when_restarted;  // by another host's fault, or this one's

 private:
  void posted(Command& command) override;
  void drive_restarted() override;

  SimDrive& drive_;
  Story& story_;
  Referee& referee_;
  const csd::HostName name_;
  uint64_t handle_ = 0;
};

// The host's side: what it submits and is told.
class SimPort final : public FaultPort {
 public:
  static constexpr unsigned max_in_flight = 16;

  SimPort(Clock& clock, Random random, Story& story, std::chrono::seconds lease,
          std::unique_ptr<SimController> drive)
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
