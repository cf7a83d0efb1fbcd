// Services inside the drive, as models: each has a script that says what it does, and keeps a record of what
// it saw. A model is two bounded socket buffers and a program between them that moves at moments of its own.
#pragma once

#include <map>
#include <memory>
#include <optional>

#include "csd/sockets/service.hpp"
#include "tests/sim/datagrams.hpp"
#include "tests/sim/pattern.hpp"
#include "tests/sim/random.hpp"
#include "tests/sim/story.hpp"
#include "tests/sim/virtual_clock.hpp"

namespace nvsock::sim {

// Where the drive listens.
inline constexpr uint16_t listening_port = 999;

struct Script {
  bool answers = true;    // otherwise a connection is neither made nor refused
  int connect_error = 0;  // errno; 0: accepts
  Clock::Duration connect_delay{};
  bool echoes = false;        // sends what it reads
  uint64_t source_bytes = 0;  // otherwise: sends so many of its own
  bool ends_first = false;    // ends its direction with the last of them; otherwise once the host has ended
  uint64_t reset_after = UINT64_MAX;  // resets the connection after so many bytes read and made
  size_t in_capacity = 65536, out_capacity = 65536;
  size_t read_size = 65536;  // of the program, at a time
  Clock::Duration tick{};    // between two of its moments
  uint64_t pause_every = UINT64_MAX;
  Clock::Duration pause{};
  Pattern from_host{}, from_service{};  // an echoing service returns what came: from_service is not used
};

struct Record {
  unsigned connects = 0;
  uint64_t got = 0;       // from the drive; always a prefix of from_host
  uint64_t produced = 0;  // by the program
  uint64_t given = 0;     // to the drive
  bool end_given = false;
  bool saw_end = false;  // the drive ended its direction
  bool reset = false;    // by the program
  bool closed = false, close_reset = true;
  Clock::TimePoint closed_at{};
};

class SimServices final : public csd::ServiceFactory {
 public:
  SimServices(VirtualClock& clock, Random random, Story& story)
      : clock_(clock), random_(random), story_(story) {}

  // A service at `port`. Stays where it is for the life of this object.
  void add(uint16_t port, const Script& script) { places_.try_emplace(port, Place{script, {}}); }
  const Script& script(uint16_t port) const { return places_.at(port).script; }
  const Record& record(uint16_t port) const { return places_.at(port).record; }
  // A service of datagrams at `port`.
  void add_flow(uint16_t port, const FlowPlan& plan) { flows_.try_emplace(port, Flow{plan, {}}); }
  const FlowRecord& flow(uint16_t port) const { return flows_.at(port).record; }
  unsigned alive() const { return alive_; }

  std::unique_ptr<csd::Service> connect(csd::Client, const relay_v2::Target& target,
                                        csd::Service::Observer& observer) override;
  void observe(csd::Service& service, csd::Service::Observer& observer) override;
  Result<std::unique_ptr<csd::ServiceListener>> listen(const relay_v2::Target& target, int backlog,
                                                       csd::ServiceListener::Observer& observer) override;

  // The program at `port` connects to where the drive listens. False: it is refused, or has to wait.
  bool come_in(uint16_t port);
  // It will do so anew.
  void forget(uint16_t port) { places_.at(port).record = {}; }
  bool listens() const { return listener_ != nullptr; }

 private:
  friend class SimListener;
  friend class SimService;
  struct Place {
    Script script;
    Record record;
  };

  struct Flow {
    FlowPlan plan;
    FlowRecord record;
  };

  VirtualClock& clock_;
  Random random_;
  Story& story_;
  std::map<uint16_t, Place> places_;
  class SimListener* listener_ = nullptr;
  std::map<uint16_t, Flow> flows_;
  unsigned alive_ = 0;
};

}  // namespace nvsock::sim
