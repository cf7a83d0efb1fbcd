// A run of the first generation's host: programs, the drive of the field with their services, and what that
// drive does to them. Nobody can half-close, so services end first, or programs know how much they want.
#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "libnvsock/host/dialect_v1.hpp"
#include "tests/sim/client.hpp"
#include "tests/sim/firmware_v1.hpp"
#include "tests/sim/plans.hpp"
#include "tests/sim/world.hpp"

namespace nvsock::sim {
namespace {

using namespace std::chrono_literals;

constexpr uint16_t first_port = 1000;
// A program whose service reset the connection may never hear of it; the host ends such after 24 days, and
// looks once a day.
constexpr auto quiet_limit = 24h * 24;
constexpr auto patience = quiet_limit + 24h * 3;
// From the last release: what was accepted (30 s), its close (2 s), and all that stalls the drive meanwhile.
constexpr auto settling = 3000s;
// Of a whole run: the longest of 10'000 good ones takes 40'000.
constexpr uint64_t most_events = 1'000'000;
constexpr auto connect_timeout = 130s;
constexpr auto drain_timeout = 30s;
constexpr auto abandon_after = 2s;  // stream_v1.cpp

class WorldV1 final : private Conditions {
 public:
  WorldV1(uint64_t seed, bool told)
      : random_(seed),
        story_(clock_, told),
        services_(clock_, Random(random_.next()), story_),
        drive_(clock_, Random(random_.next()), story_, services_, choose_habits()),
        buffers_(128 * 1024, 4) {
    DialectV1Options options{.relays = FirmwareV1::relays,
                             .connect_timeout = connect_timeout,
                             .drain_timeout = drain_timeout,
                             .log = {}};
    options.log = [this](LogLevel, const std::string& text) { story_.tell("host: %s", text.c_str()); };
    dialect_ = std::make_unique<DialectV1>(clock_, drive_, std::move(options));
    add_clients();
    if (random_.chance(50)) clock_.after(up_to(random_, 20s), [this] { drive_.vanish(); });
  }

  Outcome go() {
    const bool finished =
        run_until(clock_.now() + patience, [this] { return std::ranges::all_of(clients_, &Client::done); });
    if (!finished) not_done("for the programs");
    for (const auto& client : clients_) {
      if (!client->done()) story_.violation("%s: did not finish", client->state().c_str());
    }
    const bool empty = finished && run_until(clock_.now() + settling, [this] {
                         return dialect_->counters().streams_now == 0 && services_.alive() == 0 &&
                                drive_.in_flight() == drive_.lost() && no_streams();
                       });
    if (finished && !empty) not_done("for the host and the drive to be empty");
    examine_what_is_left(empty);
    Outcome outcome{.violations = story_.violations(),
                    .commands = drive_.commands(),
                    .bytes = bytes_,
                    .streams = static_cast<unsigned>(clients_.size()),
                    .hard_faults = drive_.gone()};
    clients_.clear();
    dialect_.reset();
    return outcome;
  }

 private:
  template <typename Predicate>
  bool run_until(Clock::TimePoint deadline, Predicate over) {
    while (!over()) {
      if (events_ == most_events || clock_.now() > deadline || !clock_.step()) return false;
      ++events_;
    }
    return true;
  }

  bool no_streams() const {
    bool none = true;
    dialect_->for_each_stream([&](const Stream&) { none = false; });
    return none;
  }

  void not_done(const char* what) {
    story_.violation("still not done after %.0f s (virtual) and %llu events, waiting %s",
                     std::chrono::duration<double>(clock_.now().time_since_epoch()).count(),
                     static_cast<unsigned long long>(events_), what);
  }

  // Whatever the drive has done: relays are free again, and what the host counts is so.
  void examine_what_is_left(bool empty) {
    const DialectCounters& counters = dialect_->counters();
    if (!empty) {
      story_.violation("%u relays are taken as the host has it, %u in the drive; %u services are left",
                       counters.streams_now, drive_.connections(), services_.alive());
    }
    if (counters.in_flight_now != drive_.in_flight()) {
      story_.violation("the host counts %u commands in flight, the drive %u", counters.in_flight_now,
                       drive_.in_flight());
    }
    if (empty && counters.abandoned_now != drive_.lost()) {
      story_.violation("the host has given up on %u commands, the drive has lost %u", counters.abandoned_now,
                       drive_.lost());
    }
    // What is lent to a lost command stays lent; but those are reads, into pages of the host's own.
    if (empty && buffers_.lent() > 0) story_.violation("%zu buffers are lent out", buffers_.lent());
    dialect_->for_each_stream([this](const Stream& stream) {
      story_.violation("stream %llu is left", static_cast<unsigned long long>(stream.id()));
    });
    for (size_t i = 0; i < clients_.size(); ++i) {
      if (empty)
        clients_[i]->check_delivery(true);  // the drive cannot reset: what is dropped ends in good order
      const Record& record = services_.record(static_cast<uint16_t>(first_port + i));
      bytes_ += record.got + record.given;
    }
  }

  FirmwareV1::Habits choose_habits() {
    constexpr PortTraits emulated{.ordered = true,
                                  .max_in_flight = UINT32_MAX,
                                  .max_blocking = UINT32_MAX,
                                  .max_abandoned = 1024,
                                  .max_reads_per_stream = 256};
    constexpr PortTraits passthrough{.ordered = false,
                                     .max_in_flight = 16,
                                     .max_blocking = 12,
                                     .max_abandoned = 8,
                                     .max_reads_per_stream = 1};
    constexpr PortTraits narrow{.ordered = false,
                                .max_in_flight = 6,
                                .max_blocking = 3,
                                .max_abandoned = 2,
                                .max_reads_per_stream = 1};
    const PortTraits traits[] = {emulated, emulated, passthrough, passthrough, narrow};
    const Clock::Duration latencies[] = {0us, 20us, 1ms, 1ms, 30ms, 200ms};
    const uint32_t descriptors[] = {0, 3, 77, 0x7ffffff0};
    return {.traits = random_.one_of(traits),
            .latency = random_.one_of(latencies),
            .loses_reads = random_.chance(700),
            .first_descriptor = random_.one_of(descriptors)};
  }

  void add_clients() {
    const size_t count = random_.chance(700) ? random_.between(1, 6) : random_.between(7, 16);
    constexpr uint64_t most = 300'000;
    for (size_t i = 0; i < count; ++i) {
      const auto port = static_cast<uint16_t>(first_port + i);
      Plan plan = choose_plan(random_, most);
      const Script script = choose_service(plan, most);
      services_.add(port, script);
      clients_.push_back(std::make_unique<Client>(clock_, Random(random_.next()), story_, *dialect_,
                                                  services_, buffers_, port, plan,
                                                  static_cast<Conditions&>(*this)));
      const Clock::Duration start = random_.chance(300) ? Clock::Duration::zero() : up_to(random_, 8s);
      clock_.after(start, [client = clients_.back().get()] { client->start(); });
    }
  }

  Script choose_service(Plan& plan, uint64_t most) {
    Script script = choose_script(random_, plan, most);
    if (script.connect_error != 0) script.connect_error = ECONNREFUSED;  // no cause is told
    if (plan.end == Plan::End::both && (script.echoes || !script.ends_first)) {
      plan.end = Plan::End::enough;
      plan.to_read = script.echoes ? plan.to_send : script.source_bytes;
    }
    // Reads behind a write that stalls are not executed: an echo that needs them would stall the drive for
    // ever.
    if (script.echoes) script.in_capacity = std::max<size_t>(script.in_capacity, plan.to_send + 1);
    if (random_.chance(30)) script.pause = up_to(random_, 100s);
    if (random_.chance(800)) plan.gives_up_after = 1s + up_to(random_, 10s);
    return script;
  }

  // --- what programs may be told ---

  bool link_failed(Clock::TimePoint) const override { return drive_.gone(); }

  bool explains(const Told& told) const override {
    if (drive_.gone() && told.error == ENODEV) return true;
    const Script& script = services_.script(told.port);
    if (told.established) {
      return told.error == ETIMEDOUT && told.after > quiet_limit && services_.record(told.port).reset &&
             drive_.loses_reads();
    }
    // The drive names no cause. The host knows whether relays are free, and how long it took.
    // Nor does the port take more than it can wait for.
    if (told.error == ENFILE && drive_.traits().max_blocking <= clients_.size()) return true;
    const bool refused = drive_.found_full(told.port) || script.connect_error != 0 || !script.answers;
    if (told.error == ENFILE) return refused;
    if (told.error != ETIMEDOUT) return false;
    // An open waits for a relay no longer than a close takes to be given up on, and then for the drive.
    const bool stalled = drive_.stalled_since(clock_.now() - told.after) > connect_timeout - 10s;
    return (told.after >= connect_timeout && stalled) || (refused && told.after > 20s);
  }

  // Whatever the drive does, a stream is gone from the host within its bounds, and soon if there is no reason
  // for more: its last write is told, its close, and the reads that this ends, or that are given up on.
  void on_release(const Released& released) override {
    expect_gone(released.stream, (released.established ? drain_timeout : connect_timeout) + abandon_after);
    if (!released.established || !released.complete || drive_.lost() > 0) return;
    static constexpr auto soon = 5s;
    clock_.after(soon, [this, id = released.stream] {
      if (drive_.stalled_since(clock_.now() - soon) == 0s && drive_.lost() == 0) expect_gone(id, 0s);
    });
  }
  void expect_gone(uint64_t id, Clock::Duration after) {
    clock_.after(after + 1ms, [this, id] {
      if (dialect_->find_stream(id) != nullptr)
        story_.violation("stream %llu is still there", static_cast<unsigned long long>(id));
    });
  }

  bool explains_refusal(int error) const override {
    return error == ENFILE || (error == ENODEV && drive_.gone());
  }

  // Too much was given up on, and it will not come back.
  bool hopeless(int error) const override {
    return error == ENODEV || (error == ENFILE && drive_.lost() >= drive_.traits().max_abandoned);
  }

  Random random_;
  VirtualClock clock_;
  Story story_;
  SimServices services_;
  FirmwareV1 drive_;
  BufferPool buffers_;
  std::unique_ptr<DialectV1> dialect_;
  std::vector<std::unique_ptr<Client>> clients_;
  uint64_t events_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace

Outcome run_v1(uint64_t seed, bool told) {
  return WorldV1(seed, told).go();
}

}  // namespace nvsock::sim
