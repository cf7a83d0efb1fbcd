// A port to a drive that goes wrong on purpose, in front of one that does not, as nbdkit's filters are. The
// one injector of faults: of `emu:?faults=SEED` and its like on a real mount, and of the simulation.
//
// What a host sees of a fault is what Linux shows it (NVMe over PCIe or TCP):
//  - a completion that is lost is missed by the driver's timeout, which resets the controller. That comes
//    within Faults::expiry here, where a driver takes half a minute and more;
//  - a reset ends every command in flight with EINTR. Those that had not reached the drive may still be
//    executed right before it, and none after;
//  - until the controller is live again, commands complete with status 370h. A removed one ends them with
//    ENODEV.
//
// The drive works on copies, as over a network: what it does with a command that the host was told is over
// shows in no buffer of the host's. Every chance comes from one seed, so that a run repeats as far as the
// order of commands does. Faults begin with the first attach: the probing before it is spared.
//
// Threads: event loop only. Never blocks; completions are delivered by the clock's timer, never by ring().
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "libnvsock/base/clock.hpp"
#include "libnvsock/base/random.hpp"
#include "libnvsock/nvme/command_port.hpp"

namespace nvsock {

// A drive that faults may reach.
class FallibleDrive : public CommandPort {
 public:
  // The controller is reset: every command is forgotten, none completes, and none of their memory is touched
  // again. `restart`: every session is lost too, and the epoch is another one.
  virtual void reset(bool restart) = 0;
};

enum class HardFault {
  reset,
  removal,  // the controller is gone meanwhile
  restart,  // the drive loses its state
};

// Rates are per mille. By default nothing goes wrong.
struct Faults {
  Clock::Duration latency{};  // commands and completions: up to that on their way, so they pass each other
  unsigned late = 0;          // commands: on their way for up to half a second more
  unsigned doubled = 0;       // commands: executed a second time, up to 200 ms later
  unsigned failed = 0;        // commands: told as aborted (status 007h), executed or not
  unsigned lost = 0;          // completions
  Clock::Duration expiry = std::chrono::seconds(3);  // a lost completion is missed after up to that
  uint64_t commands_between = 0;  // a reset or a removal comes after up to so many commands; 0: none
  Clock::Duration outage = std::chrono::seconds(4);  // the longest of a hard fault; seven of ten take 20 ms

  // A hard fault each time the host has got so many more bytes of batches across, both ways together.
  struct Every {
    uint64_t bytes;
    HardFault kind;
    Clock::Duration outage;
    uint64_t due = bytes;
  };
  std::vector<Every> every;
};

// Faults of all kinds that connections survive:
//  - commands and completions take up to 20 us, 1 ms or 5 ms on their way;
//  - of 1000 commands 1 to 3 are late, 5 to 300 doubled and 1 to 5 failed; of 1000 completions 1 to 3 are
//    lost, which is missed within 0.5 s;
//  - a hard fault comes after 1 to 1000 commands: a reset in seven cases of ten, else a removal. Seven of ten
//    are over in 20 ms, all within 1 s: far from a lease of 30 s.
Faults mixed_faults(Random& random);

struct FaultCounters {
  unsigned resets = 0, removals = 0, restarts = 0;
  unsigned late = 0, doubled = 0, failed = 0, lost = 0;
};

class FaultPort : public CommandPort {
 public:
  FaultPort(Clock& clock, Random random, std::unique_ptr<FallibleDrive> drive);
  ~FaultPort() override { FaultPort::stop(); }

  Faults faults;  // may change at any time

  // The controller fails now, and is live again after `outage`, or after one drawn from `faults`. Nothing
  // happens while it is not live: false.
  bool fail(HardFault kind, Clock::Duration outage);
  bool fail(HardFault kind) { return fail(kind, some_outage()); }

  void submit(Command& command) override { placed_.push(command); }
  void ring() override;
  bool stop() override;
  PortTraits traits() const override;
  std::string describe() const override { return drive_->describe() + " with faults"; }
  std::string faults_text() const override;
  Delivery delivery() const override { return drive_->delivery(); }

  const FaultCounters& counters() const { return counters_; }
  size_t in_flight() const { return trips_.size(); }

 protected:
  // For who watches; nothing follows from them.
  virtual void on_fault(const char* /*what*/, const Command&) {}
  virtual void on_completion(const Command&) {}  // the host is about to be told
  virtual void on_live() {}

 private:
  enum class Link : uint8_t { live, not_live, gone };
  using Trip = uint64_t;  // a command of the host's, from ring() to its completion

  // What the drive gets of it: once, or twice if it is doubled.
  struct Execution : Command {
    FaultPort* port = nullptr;
    Trip trip = 0;
    bool counts = true;  // its completion is the host's
    std::unique_ptr<uint8_t[]> buffer;
  };
  struct Event {
    enum class What : uint8_t {
      departure,  // `execution` reaches the drive
      arrival,    // a completion reaches the host's side; without `execution` it is not the drive's
      delivery,   // what arrived is told
      fault,      // `kind`, `outage`
      live,
    } what;
    Trip trip = 0;
    Completion completion{};
    std::unique_ptr<Execution> execution{};
    HardFault kind{};
    Clock::Duration outage{};
  };

  std::unique_ptr<Execution> copy_of(const Command& command, Trip trip);
  void depart(std::unique_ptr<Execution> execution);
  void execute(std::unique_ptr<Execution> execution);
  void executed(const Execution& done);
  void deliver();
  void count_moved(const Command& command);
  void end_trip(Trip trip, Completion completion);

  bool chance(unsigned per_mille) { return begun_ && random_.chance(per_mille); }
  Clock::Duration up_to(Clock::Duration most) {
    return Clock::Duration(random_.below(static_cast<uint64_t>(most.count()) + 1));
  }
  Clock::Duration some_outage();
  void after(Clock::Duration delay, Event event);
  void arm();
  void step();

  Clock& clock_;
  Random random_;
  std::unique_ptr<FallibleDrive> drive_;
  std::unique_ptr<Clock::Timer> timer_;
  std::multimap<Clock::TimePoint, Event> agenda_;  // of one moment: in the order made
  CommandQueue placed_;
  std::map<Trip, Command*> trips_;
  Trip next_trip_ = 0;
  std::map<const Command*, std::unique_ptr<Execution>> executing_;
  std::vector<Event> arrived_;
  bool begun_ = false;
  bool delivering_ = false;    // a delivery is on the agenda
  bool expiry_comes_ = false;  // a lost completion is about to be missed
  Link link_ = Link::live;
  uint64_t commands_left_ = 0;  // until the next hard fault of `commands_between`
  FaultCounters counters_;
};

}  // namespace nvsock
