// A drive of the first generation as in the field, and the way to it: a command port in virtual time, with
// the firmware's faults (libnvsock/host/dialect_v1.hpp says which), and a referee of what the host does.
//
// Theory of operation. Commands travel, arrive in the order sent or not, and are executed one after another.
// A connect, or a write to a service that does not take it, stops that: nothing else is executed until it is
// over. Reads, once executed, are served apart from that, in order, but completions travel too, and may pass
// each other. Until a command completes its page is the drive's, and the drive writes garbage to it.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/nvme/completion_delivery.hpp"
#include "tests/sim/random.hpp"
#include "tests/sim/services.hpp"
#include "tests/sim/story.hpp"
#include "tests/sim/virtual_clock.hpp"

namespace nvsock::sim {

class FirmwareV1 final : public CommandPort {
 public:
  static constexpr unsigned relays = 4;
  static constexpr Clock::Duration connect_takes = std::chrono::seconds(127);  // at most

  struct Habits {
    PortTraits traits;
    // Each way, and at least half of it: what is slow is overtaken by the next command, but not by one that
    // waited for that one's completion. 0: ring() executes, and delivers what completes.
    Clock::Duration latency{};
    bool loses_reads = true;  // of a connection that its peer reset: they never complete
    uint32_t first_descriptor = 0;
  };

  FirmwareV1(VirtualClock& clock, Random random, Story& story, SimServices& services, const Habits& habits);
  ~FirmwareV1() override;

  void submit(Command& command) override;
  void ring() override;
  bool stop() override;
  PortTraits traits() const override { return habits_.traits; }
  std::string describe() const override { return "simulated drive of the first generation"; }

  // The controller is gone for good: every command, now and later, completes with ENODEV.
  void vanish();
  bool gone() const { return gone_; }

  uint64_t commands() const { return commands_; }
  unsigned in_flight() const { return static_cast<unsigned>(held_.size()); }
  unsigned lost() const { return static_cast<unsigned>(lost_.size()); }  // commands that never complete
  unsigned connections() const;
  // How long it has executed nothing, of the time since then.
  Clock::Duration stalled_since(Clock::TimePoint then) const;
  bool loses_reads() const { return habits_.loses_reads; }
  // Was a connection to this port ever refused because all relays were taken?
  bool found_full(uint16_t port) const { return found_full_.contains(port); }

 private:
  struct Relay;
  struct Held;

  // --- the host's side ---
  static unsigned long long number_of(const Held& held);
  void examine(const Command& command, Held& held);
  void send_on();
  Command* next_to_send();
  void complete(Command& command, uint16_t status, std::vector<uint8_t> data = {});
  void deliver(Command& command, uint64_t ticket);
  void told(const Command& command, const Held& held);
  void flush();
  Clock::Duration trip() {
    return habits_.latency / 2 +
           Clock::Duration(random_.below(static_cast<uint64_t>(habits_.latency.count()) / 2 + 1));
  }
  void call_later(Clock::Duration delay, std::function<void()> call);

  // --- the drive's side ---
  void stall(Relay* by);  // null: no more
  void arrived(Command& command, uint64_t ticket);
  void execute();
  void open(Command& command);
  void opened(Relay& relay, int error);
  void write(Command& command);
  void push_write(Relay& relay);
  void read(Command& command);
  void serve(Relay& relay);
  void end_reads(Relay& relay, uint16_t status);
  void lost_connection(Relay& relay);
  void close(Command& command);
  Relay* find(uint32_t descriptor) const;
  Relay* relay_of(const Command& command) const;

  // What a command was when the host submitted it, and where it is.
  struct Held {
    uint64_t ticket = 0;
    uint64_t order = 0;    // in which the host submitted
    uint32_t opening = 0;  // number of the descriptor's opening, of comm and close
    bool sent = false;     // has a tag
  };
  // A descriptor that the host was told, until it submits the close.
  struct Given {
    uint32_t opening = 0;
    unsigned reads = 0, writes = 0;
  };

  VirtualClock& clock_;
  Random random_;
  Story& story_;
  SimServices& services_;
  const Habits habits_;
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);

  std::map<const Command*, Held> held_;
  std::set<const void*> pages_;  // of these
  std::map<uint32_t, Given> given_;
  std::deque<Command*> placed_;
  CompletionDelivery completed_;
  Clock::TimePoint last_arrival_{};  // of an ordered port
  std::set<uint32_t> closing_;       // openings whose close has left the port
  unsigned sent_ = 0, blocking_sent_ = 0;
  uint64_t commands_ = 0, next_ticket_ = 1;
  uint32_t openings_ = 0;
  std::vector<Command*> lost_;
  bool gone_ = false;
  bool flushing_ = false;

  std::deque<Command*> arrived_;
  std::vector<std::unique_ptr<Relay>> table_;  // by descriptor; null: free
  Relay* stalled_by_ = nullptr;
  Clock::TimePoint stalled_at_{};
  std::vector<std::pair<Clock::TimePoint, Clock::TimePoint>> stalls_;  // those that are over
  bool executing_ = false;
  std::set<uint16_t> found_full_;
};

}  // namespace nvsock::sim
