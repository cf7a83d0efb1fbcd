#include "tests/sim/host.hpp"

#include <algorithm>
#include <cerrno>

#include "tests/sim/plans.hpp"

namespace nvsock::sim {

using namespace std::chrono_literals;

namespace {

constexpr uint16_t ports_of_a_host = 2000;
constexpr uint16_t first_flow_port = 1000;  // those before are of byte streams

}  // namespace

SimHost::SimHost(const Site& site, Random random, unsigned index)
    : random_(random),
      clock_(site.clock),
      story_(site.story),
      drive_options_(site.drive_options),
      services_(site.services),
      drive_(site.drive),
      first_port_(static_cast<uint16_t>(ports_of_a_host * (index + 1))),
      referee_(story_, drive_options_.tx_window, drive_options_.largest_window),
      controller_(
          new SimController(drive_, story_, referee_, {.id = {}, .nqn = "host" + std::to_string(index)})),
      port_(clock_, Random(random_.next()), story_, drive_options_.lease,
            std::unique_ptr<SimController>(controller_)),
      buffers_(128 * 1024, 4) {
  port_.faults = choose_faults();
  port_.when_live = [this] { settle_later(); };
  controller_->when_restarted = [this] { on_drive_restarted(); };
  start_dialect();
  add_clients();
  const bool first = index == 0;
  if (first && drive_options_.max_streams >= 64 && random_.chance(500)) add_programs();
  if (first) add_flows(Random(random_.next()));
  add_hard_faults();
}

bool SimHost::done() const {
  return std::ranges::all_of(clients_, &Client::done) && std::ranges::all_of(flows_, &FlowClient::done) &&
         dialect_->counters().streams_now == 0;
}

void SimHost::tell_what_is_not_done() {
  for (const auto& client : clients_) {
    if (!client->done()) story_.violation("%s: did not finish", client->state().c_str());
  }
  for (const auto& flow : flows_) {
    if (!flow->done()) story_.violation("%s: did not finish", flow->state().c_str());
  }
  if (dialect_->counters().streams_now > 0)
    story_.violation("%u streams are left on %s", dialect_->counters().streams_now, name().nqn.c_str());
}

void SimHost::end_faults() {
  const Clock::Duration latency = std::min<Clock::Duration>(port_.faults.latency, 10ms);
  port_.faults = {};
  port_.faults.latency = latency;
}

void SimHost::finish() {
  account_for_datagrams();
  listener_.reset();
}

void SimHost::check(bool finished) {
  for (size_t i = 0; i < clients_.size(); ++i) {
    if (finished)
      clients_[i]->check_delivery(port_.counters().restarts + restarts_by_others_ + sessions_ended_ > 0);
    const Record& record = services_.record(port_of(i));
    bytes_ += record.got + record.given;
  }
  if (finished && buffers_.lent() > 0) story_.violation("%zu buffers are lent out", buffers_.lent());
  if (finished && dialect_->counters().in_flight_now != port_.in_flight())
    story_.violation("the host counts %u commands in flight", dialect_->counters().in_flight_now);
  if (dialect_->counters().max_in_flight > SimPort::max_in_flight)
    story_.violation("%u commands were in flight", dialect_->counters().max_in_flight);
  const unsigned causes =
      port_.counters().restarts + restarts_by_others_ + sessions_ended_ + port_.silences();
  if (dialect_->session().lost() > causes)
    story_.violation("%u sessions were lost for %u causes", dialect_->session().lost(), causes);
  listener_.reset();
  clients_.clear();
  flows_.clear();
  dialect_.reset();
}

void SimHost::start_dialect() {
  relay_v2::Capabilities capabilities = csd::capabilities_of(drive_options_);
  capabilities.epoch = drive_.epoch();
  const uint32_t windows[] = {64, 1000, 4096, 65536, 262144, 262144};
  DialectV2Options options;
  options.window = random_.one_of(windows);
  options.largest_window = options.window << random_.below(4);
  options.session.handle = random_.next() | 1;
  for (uint8_t& byte : options.session.secret) byte = static_cast<uint8_t>(random_.next());
  options.log = [this](LogLevel, const std::string& text) { story_.tell("host: %s", text.c_str()); };
  story_.tell("%s: window %u", name().nqn.c_str(), options.window);
  host_window_ = options.window;
  referee_.set_host_window(options.largest_window);
  dialect_ = std::make_unique<DialectV2>(clock_, port_, capabilities, std::move(options));
}

void SimHost::add_client(const Plan& plan, const Script& script) {
  const uint16_t port = port_of(clients_.size());
  services_.add(port, script);
  clients_.push_back(std::make_unique<Client>(clock_, Random(random_.next()), story_, *dialect_, services_,
                                              buffers_, port, plan, static_cast<Conditions&>(*this)));
  ++streams_;
}

void SimHost::add_clients() {
  // Many that are short use the same numbers again and again.
  const bool many = drive_options_.max_streams >= 64 && random_.chance(100);
  const size_t count = many                  ? random_.between(50, 300)
                       : random_.chance(700) ? random_.between(1, 6)
                                             : random_.between(7, 24);
  // Tiny windows take a command for a few bytes: less data, so that runs stay short.
  const uint32_t window = std::min(host_window_, drive_options_.window);
  const uint64_t most = many || window < 8 ? 300 : window < 100 ? 3000 : window <= 4096 ? 20'000 : 1'000'000;
  for (size_t i = 0; i < count; ++i) {
    const Plan plan = choose_plan(random_, most);
    add_client(plan, choose_script(random_, plan, most));
    const Clock::Duration start = !many && random_.chance(300) ? Clock::Duration::zero() : up_to(random_, 8s);
    clock_.after(start, [client = clients_.back().get()] { client->start(); });
  }
}

// Programs inside the drive that connect to the host. Their listener takes one of the drive's streams.
void SimHost::add_programs() {
  const uint32_t backlogs[] = {1, 2, 16, 128};
  auto opened =
      dialect_->listen({.host = "127.0.0.1", .port = listening_port}, random_.one_of(backlogs), this);
  if (!opened) return story_.violation("listen() says: %s", opened.error().text.c_str());
  listener_ = std::move(*opened);
  const uint64_t most = std::min(host_window_, drive_options_.window) <= 4096 ? 3000 : 300'000;
  for (uint64_t left = random_.between(1, 8); left > 0; --left) {
    const Plan plan = choose_plan(random_, most);
    Script script = choose_script(random_, plan, most);
    script.answers = true;
    script.connect_error = 0;
    script.reset_after = UINT64_MAX;  // so that one that is gone was dropped by the drive
    add_client(plan, script);
    clock_.after(up_to(random_, 8s), [this, client = clients_.back().get()] {
      client->await_program(services_, !calm_ || clients_.size() + 10 > drive_options_.max_streams);
    });
  }
}

void SimHost::on_listening(Listener&, const sockaddr_storage&) {
  story_.tell("%s: the drive listens", name().nqn.c_str());
}
void SimHost::on_listen_failed(Listener&, const Error& error) {
  story_.tell("%s: %s", name().nqn.c_str(), error.text.c_str());
  if (calm_ && restarts_by_others_ == 0) story_.violation("%s", error.text.c_str());
}
void SimHost::on_accepted(Listener&, StreamHandle& stream) {
  const size_t index = stream->peer().port - first_port_;
  if (index >= clients_.size()) return story_.violation("an accepted stream is of nobody's");
  if (clients_[index]->awaits()) clients_[index]->accept(stream);
}

void SimHost::add_flows(Random random) {
  const size_t window = std::min<size_t>(host_window_, drive_options_.window);
  // A small window has no room for a datagram's cost and its number; a lone stream is for the connections,
  // which wait for each other long enough.
  if (random.chance(500) || window < 64 || drive_options_.max_streams == 1) return;
  const size_t sendable = std::min<size_t>(
      {relay_v2::max_datagram, drive_options_.window - relay_v2::datagram_cost,
       drive_options_.max_batch - relay_v2::batch_header_size - relay_v2::frame_header_size});
  for (size_t i = drive_options_.max_streams < 64 ? 1 : random.between(1, 4); i > 0; --i) {
    const auto port = static_cast<uint16_t>(first_port_ + first_flow_port + i);
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
void SimHost::account_for_datagrams() {
  if (flows_.empty()) return;
  uint64_t lost = 0;
  bool known = true;
  for (const auto& flow : flows_) {
    uint64_t of_this = 0;
    known &= flow->account(of_this);
    lost += of_this;
  }
  if (known && lost != drive_.table().datagrams_dropped()) {
    story_.violation("%llu datagrams did not come back, and the drive has dropped %llu",
                     static_cast<unsigned long long>(lost),
                     static_cast<unsigned long long>(drive_.table().datagrams_dropped()));
  }
}

// The host was told, or may think, that the drive has lost the session that streams of that time were in.
bool SimHost::link_failed(Clock::TimePoint opened) const {
  return opened <= port_.silent_until() || opened <= loss_settled_;
}
// The drive's last stream may go to a program inside just before an OPEN comes.
bool SimHost::explains(const Told& told) const {
  if (told.error == ENFILE && !told.established && listener_) return true;
  return link_failed(clock_.now() - told.after) &&
         (told.error == ECONNRESET || told.error == ETIMEDOUT || told.error == EPIPE);
}
bool SimHost::explains_refusal(int error) const {
  return error == ENFILE || (error == ENODEV && link_failed(clock_.now()));
}

// --- faults ---

Faults SimHost::choose_faults() {
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

void SimHost::add_hard_faults() {
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

void SimHost::hard_fault(unsigned kind) {
  if (kind < 50) {
    port_.fail(HardFault::reset);
  } else if (kind < 70) {
    port_.fail(HardFault::removal);
  } else if (kind < 84) {
    restarting_ = true;
    if (port_.fail(HardFault::restart)) loss_settled_ = Clock::TimePoint::max();
    restarting_ = false;
  } else if (kind < 88) {
    const Clock::Duration outage = drive_options_.lease + up_to(random_, 20s) - 5s;
    if (port_.fail(HardFault::reset, outage)) expect_given_up(outage);
  } else if (drive_.table().sessions() > 0 && controller_->handle() != 0) {
    ++sessions_ended_;
    controller_->end_session();
    loss_settled_ = Clock::TimePoint::max();  // until the host must have seen it
    settle_later();
  }
}

// Section 6: silent for the lease, the drive is given up; which the host finds out within a second or two.
void SimHost::expect_given_up(Clock::Duration outage) {
  const Clock::Duration known = drive_options_.lease + 3s;
  if (outage <= known) return;
  clock_.after(known, [this] {
    if (!dialect_->session().out_of_reach()) story_.violation("the host waits for a drive beyond the lease");
  });
}

// The host tries once a second at least, and a round trip may fail a few times.
void SimHost::settle_later() {
  clock_.after(5s, [this, before = hard_faults()] {
    if (before == hard_faults()) loss_settled_ = std::min(loss_settled_, clock_.now());
  });
}

// Another host's fault is this one's, too, as when a drive loses power.
void SimHost::on_drive_restarted() {
  if (restarting_) return;
  ++restarts_by_others_;
  port_.fail(HardFault::reset);
  loss_settled_ = Clock::TimePoint::max();
  settle_later();
}

unsigned SimHost::hard_faults() const {
  const FaultCounters& counters = port_.counters();
  return counters.resets + counters.removals + counters.restarts + sessions_ended_ + restarts_by_others_;
}

}  // namespace nvsock::sim
