#include "libnvsock/port/fault_port.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "libnvsock/relay/v2.hpp"

namespace nvsock {

using namespace std::chrono_literals;

namespace {

constexpr auto longest_late = 500ms;
constexpr auto longest_double = 200ms;
constexpr auto shortest_expiry = 50ms;

bool is(const Command& command, uint8_t function) {
  return relay_v2::is_call(command) && relay_v2::function_of(command) == function;
}

}  // namespace

Faults mixed_faults(Random& random) {
  const Clock::Duration latencies[] = {20us, 1ms, 5ms};
  const unsigned doubled[] = {5, 50, 300};
  return {.latency = random.one_of(latencies),
          .late = static_cast<unsigned>(random.between(1, 3)),
          .doubled = random.one_of(doubled),
          .failed = static_cast<unsigned>(random.between(1, 5)),
          .lost = static_cast<unsigned>(random.between(1, 3)),
          .expiry = 450ms,
          .commands_between = random.between(100, 1000),
          .outage = 1s,
          .every = {}};
}

FaultPort::FaultPort(Clock& clock, Random random, std::unique_ptr<FallibleDrive> drive)
    : clock_(clock), random_(random), drive_(std::move(drive)), timer_(clock.make_timer()) {}

PortTraits FaultPort::traits() const {
  PortTraits traits = drive_->traits();
  traits.ordered = false;
  return traits;
}

// The drive has only copies: nothing of the host's is with it.
bool FaultPort::stop() {
  timer_->disarm();
  agenda_.clear();
  drive_->stop();
  executing_.clear();
  return true;
}

std::string FaultPort::faults_text() const {
  const std::pair<const char*, unsigned> all[] = {
      {"resets", counters_.resets}, {"removals", counters_.removals}, {"restarts", counters_.restarts},
      {"lost", counters_.lost},     {"doubled", counters_.doubled},   {"failed", counters_.failed},
      {"late", counters_.late}};
  std::string text;
  for (const auto& [name, count] : all) {
    text += (text.empty() ? "" : ", ") + std::string(name) + " " + std::to_string(count);
  }
  return text;
}

// --- the agenda ---

void FaultPort::after(Clock::Duration delay, Event event) {
  const auto placed = agenda_.emplace(clock_.now() + delay, std::move(event));
  if (placed == agenda_.begin()) arm();
}

void FaultPort::arm() {
  if (!agenda_.empty()) timer_->arm(agenda_.begin()->first - clock_.now(), [this] { step(); });
}

// One event a turn of the loop, so that faults never keep it from anything else.
void FaultPort::step() {
  Event event = std::move(agenda_.extract(agenda_.begin()).mapped());
  arm();
  switch (event.what) {
    case Event::What::departure:
      return depart(std::move(event.execution));
    case Event::What::arrival:
      arrived_.push_back(std::move(event));
      // A little later, so that completions come several at a time.
      if (!std::exchange(delivering_, true))
        after(up_to(faults.latency / 4), {.what = Event::What::delivery});
      return;
    case Event::What::delivery:
      return deliver();
    case Event::What::fault:
      fail(event.kind, event.outage);
      return;
    case Event::What::live:
      link_ = Link::live;
      return on_live();
  }
}

// --- from the host ---

std::unique_ptr<FaultPort::Execution> FaultPort::copy_of(const Command& command, Trip trip) {
  auto copy = std::make_unique<Execution>();
  static_cast<Command&>(*copy) = command;
  copy->port = this;
  copy->trip = trip;
  copy->done = [](Command& done) {
    auto& own = static_cast<Execution&>(done);
    own.port->executed(own);
  };
  copy->next = nullptr;
  if (command.data_length > 0) {
    copy->buffer.reset(new uint8_t[command.data_length]);
    copy->data = copy->buffer.get();
    const bool only_to_host = (command.opcode & 3) == 2;
    if (!only_to_host) std::memcpy(copy->data, command.data, command.data_length);
  }
  return copy;
}

void FaultPort::ring() {
  while (!placed_.empty()) {
    Command& command = placed_.pop();
    const Trip trip = next_trip_++;
    trips_.emplace(trip, &command);
    begun_ = begun_ || is(command, relay_v2::function::attach);
    if (link_ != Link::live) {
      end_trip(trip, link_ == Link::gone
                         ? Completion{.error = ENODEV}
                         : Completion{.error = 0, .status = status::host_path_error, .dw0 = 0});
      continue;
    }
    Clock::Duration delay = up_to(faults.latency);
    if (chance(faults.late)) {
      ++counters_.late;
      on_fault("is late", command);
      delay += up_to(longest_late);
    }
    if (chance(faults.doubled)) {
      ++counters_.doubled;
      auto again = copy_of(command, trip);
      again->counts = false;
      after(up_to(faults.latency) + up_to(longest_double),
            {.what = Event::What::departure, .execution = std::move(again)});
    }
    after(delay, {.what = Event::What::departure, .execution = copy_of(command, trip)});
    if (begun_ && faults.commands_between > 0) {
      if (commands_left_ == 0) commands_left_ = random_.between(1, faults.commands_between);
      if (--commands_left_ == 0) {
        after(up_to(faults.latency), {.what = Event::What::fault,
                                      .kind = chance(700) ? HardFault::reset : HardFault::removal,
                                      .outage = some_outage()});
      }
    }
  }
}

void FaultPort::depart(std::unique_ptr<Execution> execution) {
  if (!execution->counts) {
    on_fault("reaches the drive again", *execution);
  } else if (chance(faults.failed)) {
    ++counters_.failed;
    const bool executed = random_.chance(500);
    on_fault(executed ? "is told as failed, but is executed" : "is told as failed, and is not executed",
             *execution);
    end_trip(execution->trip, {.error = 0, .status = status::aborted, .dw0 = 0});
    if (!executed) return;
    execution->counts = false;
  }
  execute(std::move(execution));
}

void FaultPort::execute(std::unique_ptr<Execution> execution) {
  Execution& command = *execution;
  executing_.emplace(&command, std::move(execution));
  drive_->submit(command);
  drive_->ring();
}

// --- from the drive ---

void FaultPort::executed(const Execution& done) {
  std::unique_ptr<Execution> execution = std::move(executing_.extract(&done).mapped());
  if (!execution->counts) return;
  if (chance(faults.lost)) {
    ++counters_.lost;
    on_fault("its completion is lost", *execution);
    if (!std::exchange(expiry_comes_, true)) {
      after(shortest_expiry + up_to(faults.expiry),
            {.what = Event::What::fault, .kind = HardFault::reset, .outage = some_outage()});
    }
    return;
  }
  const Trip trip = execution->trip;
  const Completion completion = execution->completion;
  after(up_to(faults.latency), {.what = Event::What::arrival,
                                .trip = trip,
                                .completion = completion,
                                .execution = std::move(execution)});
}

void FaultPort::end_trip(Trip trip, Completion completion) {
  after(up_to(faults.latency) + 1us, {.what = Event::What::arrival, .trip = trip, .completion = completion});
}

void FaultPort::deliver() {
  delivering_ = false;
  for (Event& arrived : std::exchange(arrived_, {})) {
    const auto trip = trips_.extract(arrived.trip);
    if (trip.empty()) continue;
    Command& command = *trip.mapped();
    command.completion = arrived.completion;
    const bool to_host = (command.opcode & 3) != 1;
    if (arrived.completion.ok() && command.data_length > 0 && to_host) {
      const uint32_t size =
          is(command, relay_v2::function::rx) ? arrived.completion.dw0 : command.data_length;
      std::memcpy(command.data, arrived.execution->data, std::min(size, command.data_length));
    }
    if (arrived.completion.ok()) count_moved(command);
    on_completion(command);
    command.done(command);
  }
  if (client_ != nullptr) client_->on_batch_end();
}

// Of what the host was told, so that a reset after every byte still lets it get on.
void FaultPort::count_moved(const Command& command) {
  const uint64_t moved = is(command, relay_v2::function::tx)   ? command.data_length
                         : is(command, relay_v2::function::rx) ? command.completion.dw0
                                                               : 0;
  for (Faults::Every& every : faults.every) {
    if (moved < every.due) {
      every.due -= moved;
      continue;
    }
    every.due = every.bytes;
    after(0us, {.what = Event::What::fault, .kind = every.kind, .outage = every.outage});
  }
}

// --- hard faults ---

// Mostly short: most of what is to be disturbed happens within a second.
Clock::Duration FaultPort::some_outage() {
  return up_to(random_.chance(700) ? std::min<Clock::Duration>(20ms, faults.outage) : faults.outage);
}

bool FaultPort::fail(HardFault kind, Clock::Duration outage) {
  if (link_ != Link::live) return false;
  ++(kind == HardFault::reset     ? counters_.resets
     : kind == HardFault::removal ? counters_.removals
                                  : counters_.restarts);
  // The last that the drive may do for commands on their way, in any order.
  for (auto& [moment, event] : std::exchange(agenda_, {})) {
    if (event.what != Event::What::departure || !random_.chance(400)) continue;
    on_fault("is executed right before", *event.execution);
    event.execution->counts = false;
    execute(std::move(event.execution));
  }
  drive_->reset(kind == HardFault::restart);
  executing_.clear();  // forgotten: touching them now would be an error that sanitizers see
  agenda_.clear();
  arrived_.clear();
  delivering_ = expiry_comes_ = false;
  link_ = kind == HardFault::removal ? Link::gone : Link::not_live;
  for (const auto& [trip, command] : trips_) {
    end_trip(trip, {.error = kind == HardFault::removal ? ENODEV : EINTR});
  }
  after(outage, {.what = Event::What::live});
  return true;
}

}  // namespace nvsock
