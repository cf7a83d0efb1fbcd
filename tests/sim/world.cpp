#include "tests/sim/world.hpp"

#include <algorithm>
#include <cerrno>

#include "csd/v2/session_table.hpp"
#include "libnvsock/host/dialect_v2.hpp"
#include "tests/sim/client.hpp"
#include "tests/sim/datagrams.hpp"
#include "tests/sim/plans.hpp"
#include "tests/sim/port.hpp"

namespace nvsock::sim {
namespace {

using namespace std::chrono_literals;

constexpr auto faults_end = 20s;
// From the end of the faults: a connection that nobody answers (130 s), then what was accepted (30 s), and
// the drive's lingering (30 s), with a margin.
constexpr auto patience = 400s;
// Of a whole run, for those in which time does not get on: the longest of 10'000 good ones takes 120'000.
constexpr uint64_t most_events = 1'000'000;
constexpr uint16_t first_port = 1000;
constexpr uint16_t first_flow_port = 2000;

class World final : private ListenerObserver, private Conditions {
 public:
  World(uint64_t seed, bool told)
      : random_(seed),
        story_(clock_, told),
        drive_options_(choose_drive()),
        referee_(story_, drive_options_.tx_window, drive_options_.largest_window),
        services_(clock_, Random(random_.next()), story_),
        drive_(new SimDrive(clock_, services_, Random(random_.next()), story_, referee_, drive_options_)),
        port_(clock_, Random(random_.next()), story_, drive_options_.lease,
              std::unique_ptr<SimDrive>(drive_)),
        buffers_(128 * 1024, 4) {
    port_.faults = choose_faults();
    port_.when_live = [this] { settle_later(); };
    start_host();
    add_clients();
    if (drive_options_.max_streams >= 64 && random_.chance(500)) add_programs();
    add_flows(Random(random_.next()));
    add_hard_faults();
  }

  Outcome go() {
    clock_.after(faults_end, [this] {
      story_.tell("no faults from here on");
      const Clock::Duration latency = std::min<Clock::Duration>(port_.faults.latency, 10ms);
      port_.faults = {};
      port_.faults.latency = latency;
    });
    const bool finished = run_until(faults_end + patience, [this] {
      return clock_.now().time_since_epoch() >= faults_end && std::ranges::all_of(clients_, &Client::done) &&
             std::ranges::all_of(flows_, &FlowClient::done) && dialect_->counters().streams_now == 0;
    });
    if (!finished) {
      not_done("for the host to finish");
      for (const auto& client : clients_) {
        if (!client->done()) story_.violation("%s: did not finish", client->state().c_str());
      }
      for (const auto& flow : flows_) {
        if (!flow->done()) story_.violation("%s: did not finish", flow->state().c_str());
      }
      if (dialect_->counters().streams_now > 0) {
        story_.violation("%u streams are left on the host", dialect_->counters().streams_now);
      }
    }
    end(finished);
    Outcome outcome{.violations = story_.violations(),
                    .commands = port_.commands(),
                    .bytes = bytes_,
                    .streams = streams_,
                    .hard_faults = hard_faults()};
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

  // Nothing may be left: on the host, on the way, in the drive.
  void end(bool finished) {
    if (finished) account_for_datagrams();
    const auto now = [this] { return clock_.now().time_since_epoch(); };
    listener_.reset();
    // Sometimes at once: it must not overtake what carries the last bytes.
    if (random_.chance(500)) run_until(now() + 5s, [] { return false; });
    if (finished) {
      dialect_->detach();
      if (!run_until(now() + 60s, [this] { return port_.in_flight() == 0; })) {
        not_done("for its last commands");
        story_.violation("%zu commands are in flight after detach()", port_.in_flight());
      }
    }
    // Sessions that a lost attach made end with their lease, closed streams with their lingering.
    const auto empty = [this] {
      return drive_->table().sessions() == 0 && services_.alive() == 0 && !services_.listens();
    };
    if (finished && !run_until(now() + drive_options_.lease + drive_options_.linger + 15s, empty)) {
      not_done("for the drive to be empty");
      story_.violation("%zu sessions and %u services are left in the drive", drive_->table().sessions(),
                       services_.alive());
    }
    for (size_t i = 0; i < clients_.size(); ++i) {
      if (finished) clients_[i]->check_delivery(port_.counters().restarts + sessions_ended_ > 0);
      const Record& record = services_.record(static_cast<uint16_t>(first_port + i));
      bytes_ += record.got + record.given;
    }
    if (finished && buffers_.lent() > 0) story_.violation("%zu buffers are lent out", buffers_.lent());
    if (finished && dialect_->counters().in_flight_now != port_.in_flight()) {
      story_.violation("the host counts %u commands in flight", dialect_->counters().in_flight_now);
    }
    if (dialect_->counters().max_in_flight > SimPort::max_in_flight) {
      story_.violation("%u commands were in flight", dialect_->counters().max_in_flight);
    }
    const unsigned causes = port_.counters().restarts + sessions_ended_ + port_.silences();
    if (dialect_->session().lost() > causes) {
      story_.violation("%u sessions were lost for %u causes", dialect_->session().lost(), causes);
    }
    clients_.clear();
    flows_.clear();
    dialect_.reset();
  }

  // --- the drive ---

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
    return options;
  }

  // --- the host ---

  void start_host() {
    relay_v2::Capabilities capabilities = csd::capabilities_of(drive_options_);
    capabilities.epoch = drive_->epoch();
    const uint32_t windows[] = {64, 1000, 4096, 65536, 262144, 262144};
    DialectV2Options options;
    options.window = random_.one_of(windows);
    options.largest_window = options.window << random_.below(4);
    for (uint8_t& byte : options.session) byte = static_cast<uint8_t>(random_.next());
    options.log = [this](LogLevel, const std::string& text) { story_.tell("host: %s", text.c_str()); };
    story_.tell("a host: window %u", options.window);
    host_window_ = options.window;
    referee_.set_host_window(options.largest_window);
    dialect_ = std::make_unique<DialectV2>(clock_, port_, capabilities, std::move(options));
  }

  void add_clients() {
    const size_t count = random_.chance(700) ? random_.between(1, 6) : random_.between(7, 24);
    streams_ = static_cast<unsigned>(count);
    // Tiny windows take a command for a few bytes: less data, so that runs stay short.
    const uint32_t window = std::min(host_window_, drive_options_.window);
    const uint64_t most = window < 8 ? 300 : window < 100 ? 3000 : window <= 4096 ? 20'000 : 1'000'000;
    for (size_t i = 0; i < count; ++i) {
      const auto port = static_cast<uint16_t>(first_port + i);
      const Plan plan = choose_plan(random_, most);
      services_.add(port, choose_script(random_, plan, most));
      clients_.push_back(std::make_unique<Client>(clock_, Random(random_.next()), story_, *dialect_,
                                                  services_, buffers_, port, plan,
                                                  static_cast<Conditions&>(*this)));
      const Clock::Duration start = random_.chance(300) ? Clock::Duration::zero() : up_to(random_, 8s);
      clock_.after(start, [client = clients_.back().get()] { client->start(); });
    }
  }

  // Programs inside the drive that connect to the host. Their listener takes one of the drive's streams.
  void add_programs() {
    const uint32_t backlogs[] = {1, 2, 16, 128};
    auto opened =
        dialect_->listen({.host = "127.0.0.1", .port = listening_port}, random_.one_of(backlogs), this);
    if (!opened) return story_.violation("listen() says: %s", opened.error().text.c_str());
    listener_ = std::move(*opened);
    const uint64_t most = std::min(host_window_, drive_options_.window) <= 4096 ? 3000 : 300'000;
    for (uint64_t left = random_.between(1, 8); left > 0; --left) {
      const auto port = static_cast<uint16_t>(first_port + clients_.size());
      const Plan plan = choose_plan(random_, most);
      Script script = choose_script(random_, plan, most);
      script.answers = true;
      script.connect_error = 0;
      script.reset_after = UINT64_MAX;  // so that one that is gone was dropped by the drive
      services_.add(port, script);
      clients_.push_back(std::make_unique<Client>(clock_, Random(random_.next()), story_, *dialect_,
                                                  services_, buffers_, port, plan,
                                                  static_cast<Conditions&>(*this)));
      ++streams_;
      clock_.after(up_to(random_, 8s),
                   [this, client = clients_.back().get()] { client->await_program(services_, !calm_); });
    }
  }

  void on_listening(Listener&, const sockaddr_storage&) override { story_.tell("host: the drive listens"); }
  void on_listen_failed(Listener&, const Error& error) override {
    story_.tell("host: %s", error.text.c_str());
    if (calm_) story_.violation("%s", error.text.c_str());
  }
  void on_accepted(Listener&, StreamHandle& stream) override {
    const size_t index = stream->peer().port - first_port;
    if (index >= clients_.size()) return story_.violation("an accepted stream is of nobody's");
    if (clients_[index]->awaits()) clients_[index]->accept(stream);
  }

  void add_flows(Random random) {
    const size_t window = std::min<size_t>(host_window_, drive_options_.window);
    // A small window has no room for a datagram's cost and its number; a lone stream is for the connections,
    // which wait for each other long enough.
    if (random.chance(500) || window < 64 || drive_options_.max_streams == 1) return;
    const size_t sendable = std::min<size_t>(
        {relay_v2::max_datagram, drive_options_.window - relay_v2::datagram_cost,
         drive_options_.max_batch - relay_v2::batch_header_size - relay_v2::frame_header_size});
    for (size_t i = drive_options_.max_streams < 64 ? 1 : random.between(1, 4); i > 0; --i) {
      const auto port = static_cast<uint16_t>(first_flow_port + i);
      const unsigned rates[] = {0, 0, 10, 200};
      const size_t largest = 8 + random.any_size(random.chance(50) ? 70'000 : sendable - 8);
      FlowPlan plan{
          .count = static_cast<unsigned>(random.any_size(std::min<size_t>(300, 10 + 150'000 / largest))),
          .largest = largest,
          .seed = random.next(),
          .write_pause = Clock::Duration(random.any_size(10'000'000)),
          .read_pause = Clock::Duration(random.any_size(20'000'000)),
          .echo_pause = Clock::Duration(random.any_size(10'000'000)),
          .silence = up_to(random, random.chance(700) ? Clock::Duration(1s) : Clock::Duration(9s)),
          .busy = random.one_of(rates),
          .refused = random.one_of(rates),
          .room = 1000 + random.any_size(200'000)};
      services_.add_flow(port, plan);
      flows_.push_back(std::make_unique<FlowClient>(
          clock_, Random(random.next()), story_, *dialect_, port, plan, services_.flow(port), sendable,
          [this](Clock::TimePoint opened) { return link_failed(opened); }));
      clock_.after(up_to(random, 8s), [flow = flows_.back().get()] { flow->start(); });
    }
  }

  // What came back is all that was sent back but what the drive has dropped and counted.
  void account_for_datagrams() {
    uint64_t lost = 0;
    bool known = true;
    for (const auto& flow : flows_) {
      uint64_t of_this = 0;
      known &= flow->account(of_this);
      lost += of_this;
    }
    if (known && lost != drive_->table().datagrams_dropped()) {
      story_.violation("%llu datagrams did not come back, and the drive has dropped %llu",
                       static_cast<unsigned long long>(lost),
                       static_cast<unsigned long long>(drive_->table().datagrams_dropped()));
    }
  }

  // The host was told, or may think, that the drive has lost the session that streams of that time were in.
  bool link_failed(Clock::TimePoint opened) const override {
    return opened <= port_.silent_until() || opened <= loss_settled_;
  }
  bool explains(const Told& told) const override {
    return link_failed(clock_.now() - told.after) &&
           (told.error == ECONNRESET || told.error == ETIMEDOUT || told.error == EPIPE);
  }
  bool explains_refusal(int error) const override {
    return error == ENFILE || (error == ENODEV && link_failed(clock_.now()));
  }
  bool hopeless(int) const override { return false; }

  // --- faults ---

  Faults choose_faults() {
    const Clock::Duration latencies[] = {0us, 20us, 1ms, 1ms, 30ms, 200ms};
    Faults faults;
    faults.latency = random_.one_of(latencies);
    calm_ = random_.chance(200);
    if (calm_) return faults;
    const unsigned doubled[] = {0, 5, 50, 300};
    const unsigned lost[] = {0, 0, 1, 10};
    const unsigned failed[] = {0, 0, 2, 20};
    const unsigned late[] = {0, 0, 5, 50};
    faults.doubled = random_.one_of(doubled);
    faults.lost = random_.one_of(lost);
    faults.failed = random_.one_of(failed);
    faults.late = random_.one_of(late);
    return faults;
  }

  void add_hard_faults() {
    if (calm_) return;
    const bool storm = random_.chance(100);
    for (uint64_t left = storm ? 40 : random_.below(5); left > 0; --left) {
      const Clock::Duration at = storm                 ? up_to(random_, 3s)
                                 : random_.chance(500) ? up_to(random_, 200ms)
                                                       : up_to(random_, faults_end);
      const auto kind = static_cast<unsigned>(random_.below(storm ? 70 : 100));
      clock_.after(at, [this, kind] { hard_fault(kind); });
    }
  }

  void hard_fault(unsigned kind) {
    if (kind < 50) {
      port_.fail(HardFault::reset);
    } else if (kind < 70) {
      port_.fail(HardFault::removal);
    } else if (kind < 84) {
      if (port_.fail(HardFault::restart)) loss_settled_ = Clock::TimePoint::max();
    } else if (kind < 88) {
      const Clock::Duration outage = drive_options_.lease + up_to(random_, 20s) - 5s;
      if (port_.fail(HardFault::reset, outage)) expect_given_up(outage);
    } else if (drive_->table().sessions() > 0) {
      ++sessions_ended_;
      drive_->end_session();
      loss_settled_ = Clock::TimePoint::max();  // until the host must have seen it
      settle_later();
    }
  }

  // Section 6: silent for the lease, the drive is given up; which the host finds out within a second or two.
  void expect_given_up(Clock::Duration outage) {
    const Clock::Duration known = drive_options_.lease + 3s;
    if (outage <= known) return;
    clock_.after(known, [this] {
      if (!dialect_->session().out_of_reach())
        story_.violation("the host waits for a drive beyond the lease");
    });
  }

  // The host tries once a second at least, and a round trip may fail a few times.
  void settle_later() {
    clock_.after(5s, [this, before = hard_faults()] {
      if (before == hard_faults()) loss_settled_ = std::min(loss_settled_, clock_.now());
    });
  }

  unsigned hard_faults() const {
    const FaultCounters& counters = port_.counters();
    return counters.resets + counters.removals + counters.restarts + sessions_ended_;
  }

  Random random_;
  VirtualClock clock_;
  Story story_;
  const csd::SessionTableOptions drive_options_;
  Referee referee_;
  SimServices services_;
  SimDrive* const drive_;  // the port's
  SimPort port_;
  BufferPool buffers_;
  std::unique_ptr<DialectV2> dialect_;
  std::vector<std::unique_ptr<Client>> clients_;
  ListenerHandle listener_;
  std::vector<std::unique_ptr<FlowClient>> flows_;
  uint32_t host_window_ = 0;
  uint64_t events_ = 0;
  uint64_t bytes_ = 0;
  unsigned streams_ = 0, sessions_ended_ = 0;
  bool calm_ = false;
  Clock::TimePoint loss_settled_ = Clock::TimePoint::min();
};

}  // namespace

Outcome run(uint64_t seed, bool told) {
  return World(seed, told).go();
}

}  // namespace nvsock::sim
