// The way between host and drive, with all that may happen on it. The drive works on copies, as over a
// network: what it does with a command that the host was told is over shows in no buffer of the host's.
//
// A hard fault ends every command in flight with an unknown outcome: those that had not reached the drive may
// still be executed, right before, and none after.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "csd/completion_queue.hpp"
#include "csd/session_table.hpp"
#include "libnvsock/command_port.hpp"
#include "tests/sim/random.hpp"
#include "tests/sim/referee.hpp"
#include "tests/sim/story.hpp"
#include "tests/sim/virtual_clock.hpp"

namespace nvsock::sim {

struct PortFaults {
  Clock::Duration latency{};  // of a command on its way, and of a completion: up to that
  unsigned duplicates = 0;    // per mille of commands: executed a second time, later
  unsigned lost = 0;          // per mille of completions: followed by a hard fault
  unsigned transient = 0;     // per mille of commands: told as failed, executed or not
};

class SimPort final : public CommandPort, public csd::CompletionQueue {
 public:
  static constexpr unsigned max_in_flight = 16;

  SimPort(VirtualClock& clock, Random random, Story& story, Referee& referee, std::chrono::seconds lease)
      : clock_(clock), random_(random), story_(story), referee_(referee), lease_(lease) {}

  PortFaults faults;
  std::function<void()> on_lost_completion;  // somebody must reset the controller

  // Null while there is none. The one before has forgotten its commands, or is gone.
  void set_drive(csd::SessionTable* drive) { drive_ = drive; }
  // Part one of a hard fault: what is in flight ends. `restart` is called where the drive changes.
  void interrupt(int error, const std::function<void()>& change);
  // While not live commands complete with status 370h; while gone with ENODEV.
  enum class Link { live, not_live, gone };
  void set_link(Link link);

  void submit(Command& command) override;
  void ring() override;
  bool stop() override { return trips_.empty(); }
  PortTraits traits() const override;
  std::string describe() const override { return "simulated drive"; }

  void post(Command& command) override;
  void flush() override;

  size_t in_flight() const { return trips_.size(); }
  // When the host last had heard of nothing that succeeded for about a lease: it may have given the session
  // up.
  Clock::TimePoint silent_until() const {
    return clock_.now() - heard_ > lease_ - std::chrono::seconds(1) ? clock_.now() : silent_until_;
  }
  uint64_t commands() const { return next_trip_; }

 private:
  struct Execution : Command {
    uint64_t trip = 0;
    bool counts = false;  // the host waits for this one's completion
    std::unique_ptr<uint8_t[]> buffer;
  };
  struct Trip {
    Command* command = nullptr;
    std::unique_ptr<Execution> departing;  // until the drive has it
  };
  struct Arrived {
    uint64_t trip;
    Completion completion;
    std::unique_ptr<Execution> execution;  // null: nothing came back
  };

  void check(const Command& command);
  Clock::Duration delay() {
    return Clock::Duration(random_.below(static_cast<uint64_t>(faults.latency.count()) + 1));
  }
  std::unique_ptr<Execution> copy_of(const Command& command, uint64_t trip);
  void depart(uint64_t trip);
  void execute(std::unique_ptr<Execution> execution);
  void arrive(Arrived arrived);
  void deliver();

  VirtualClock& clock_;
  Random random_;
  Story& story_;
  Referee& referee_;
  const std::chrono::seconds lease_;
  csd::SessionTable* drive_ = nullptr;
  Link link_ = Link::live;
  uint64_t generation_ = 0;  // counts hard faults: what was on its way before one does not arrive
  uint64_t next_trip_ = 0;
  std::vector<Command*> placed_;
  std::map<uint64_t, Trip> trips_;
  std::map<const Command*, std::unique_ptr<Execution>> executing_;
  std::vector<std::unique_ptr<Execution>> completed_;
  std::vector<Arrived> arrived_;
  bool delivering_ = false;
  Clock::TimePoint heard_{};
  Clock::TimePoint silent_until_ = Clock::TimePoint::min();
};

}  // namespace nvsock::sim
