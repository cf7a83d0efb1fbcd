#include "tests/sim/world.hpp"

#include <algorithm>

#include "tests/sim/host.hpp"
#include "tests/sim/stranger.hpp"

namespace nvsock::sim {
namespace {

using namespace std::chrono_literals;

// From the end of the faults: a connection that nobody answers (130 s), then what was accepted (30 s), and
// the drive's lingering (30 s), with a margin.
constexpr auto patience = 400s;
// Of a whole run, for those in which time does not get on: the longest of 10'000 good ones takes 120'000.
constexpr uint64_t most_events = 1'000'000;
constexpr uint32_t sessions_of_a_host = 4;

class World {
 public:
  World(uint64_t seed, bool told)
      : random_(seed),
        story_(clock_, told),
        drive_options_(choose_drive()),
        services_(clock_, Random(random_.next()), story_),
        drive_(clock_, services_, Random(random_.next()), story_, drive_options_) {
    const Site site{clock_, story_, drive_options_, services_, drive_};
    for (unsigned i = 0, count = random_.chance(700) ? 1 : 2; i < count; ++i)
      hosts_.push_back(std::make_unique<SimHost>(site, Random(random_.next()), i));
    if (random_.chance(500)) stranger_ = std::make_unique<Stranger>(site, Random(random_.next()), hosts_);
  }

  Outcome go() {
    clock_.after(faults_end, [this] {
      story_.tell("no faults from here on");
      for (const auto& host : hosts_) host->end_faults();
    });
    const bool finished = run_until(faults_end + patience, [this] {
      return clock_.now().time_since_epoch() >= faults_end && std::ranges::all_of(hosts_, &SimHost::done);
    });
    if (!finished) {
      not_done("for the hosts to finish");
      for (const auto& host : hosts_) host->tell_what_is_not_done();
    }
    end(finished);
    Outcome outcome{.violations = story_.violations()};
    for (const auto& host : hosts_) {
      outcome.commands += host->commands();
      outcome.bytes += host->bytes();
      outcome.streams += host->streams();
      outcome.hard_faults += host->hard_faults();
    }
    return outcome;
  }

 private:
  template <typename Predicate>
  bool run_until(Clock::Duration bound, Predicate over) {
    const auto deadline = Clock::TimePoint{} + bound;
    while (!over()) {
      if (events_ == most_events || clock_.now() > deadline || !clock_.step()) return false;
      ++events_;
    }
    return true;
  }

  void not_done(const char* what) {
    story_.violation("still not done after %.0f s (virtual) and %llu events, waiting %s",
                     std::chrono::duration<double>(clock_.now().time_since_epoch()).count(),
                     static_cast<unsigned long long>(events_), what);
  }

  // Nothing may be left: on the hosts, on the way, in the drive.
  void end(bool finished) {
    const auto now = [this] { return clock_.now().time_since_epoch(); };
    if (finished) {
      for (const auto& host : hosts_) host->finish();
    }
    // Sometimes at once: it must not overtake what carries the last bytes.
    if (random_.chance(500)) run_until(now() + 5s, [] { return false; });
    if (finished) {
      for (const auto& host : hosts_) host->detach();
      const auto quiet = [](const auto& host) { return host->in_flight() == 0; };
      if (!run_until(now() + 60s, [&] { return std::ranges::all_of(hosts_, quiet); })) {
        not_done("for their last commands");
        story_.violation("commands are in flight after detach()");
      }
    }
    stranger_.reset();
    // Sessions that a lost attach made end with their lease, closed streams with their lingering.
    const auto empty = [this] {
      return drive_.table().sessions() == 0 && services_.alive() == 0 && !services_.listens();
    };
    if (finished && !run_until(now() + drive_options_.lease + drive_options_.linger + 15s, empty)) {
      not_done("for the drive to be empty");
      story_.violation("%zu sessions and %u services are left in the drive", drive_.table().sessions(),
                       services_.alive());
    }
    for (const auto& host : hosts_) host->check(finished);
  }

  csd::SessionTableOptions choose_drive() {
    csd::SessionTableOptions options;
    const uint32_t batches[] = {4096, 4104, 16384, 65536, 131072, 131072};
    const uint32_t windows[] = {1, 64, 1000, 4096, 65536, 262144, 262144};
    const uint32_t streams[] = {1, 3, 64, 64};
    const uint16_t command_windows[] = {1, 2, 4, 8, 8};
    const std::chrono::milliseconds waits[] = {50ms, 1000ms, 10000ms, 10000ms};
    options.max_batch = random_.one_of(batches);
    options.window = random_.one_of(windows);
    options.largest_window = options.window << random_.below(3);
    options.max_streams = random_.one_of(streams);
    options.tx_window = random_.one_of(command_windows);
    options.rx_window = random_.one_of(command_windows);
    options.max_wait = random_.one_of(waits);
    const std::chrono::milliseconds quiet[] = {2000ms, 10'000ms, 300'000ms, 300'000ms};
    options.flow_quiet = random_.one_of(quiet);
    options.max_sessions = 4 * sessions_of_a_host;
    options.may_attach = [this](const csd::HostName& name) {
      unsigned count = 0;
      drive_.table().for_each_host([&](const csd::HostName& other) { count += other == name; });
      return count < sessions_of_a_host;
    };
    return options;
  }

  Random random_;
  VirtualClock clock_;
  Story story_;
  const csd::SessionTableOptions drive_options_;
  SimServices services_;
  SimDrive drive_;
  std::vector<std::unique_ptr<SimHost>> hosts_;
  std::unique_ptr<Stranger> stranger_;
  uint64_t events_ = 0;
};

}  // namespace

Outcome run(uint64_t seed, bool told) {
  return World(seed, told).go();
}

}  // namespace nvsock::sim
