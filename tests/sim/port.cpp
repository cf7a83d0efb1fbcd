#include "tests/sim/port.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace nvsock::sim {

using namespace std::chrono_literals;

namespace {

constexpr uint16_t not_live_status =
    0x370;  // path related: as the kernel's driver has it while it reconnects

const char* name_of(const Command& command) {
  switch (command.cdw10) {
    case relay_v2::function::capabilities:
      return "capabilities";
    case relay_v2::function::attach:
      return "attach";
    case relay_v2::function::detach:
      return "detach";
    case relay_v2::function::tx:
      return "tx";
    case relay_v2::function::rx:
      return "rx";
    default:
      return "?";
  }
}

unsigned long long sequence_of(const Command& command) {
  return command.cdw14 | uint64_t{command.cdw15} << 32;
}

}  // namespace

PortTraits SimPort::traits() const {
  return {.ordered = false,
          .max_in_flight = max_in_flight,
          .max_blocking = max_in_flight,
          .max_abandoned = 8,
          .max_reads_per_stream = 1};
}

void SimPort::check(const Command& command) {
  const auto wrong = [&](const char* what) { story_.violation("%s: %s", name_of(command), what); };
  const bool to_host =
      command.cdw10 == relay_v2::function::rx || command.cdw10 == relay_v2::function::capabilities;
  const bool no_data = command.cdw10 == relay_v2::function::detach;
  if (command.opcode != (to_host   ? relay_v2::opcode::to_host
                         : no_data ? relay_v2::opcode::no_data
                                   : relay_v2::opcode::to_drive)) {
    wrong("the opcode is not the direction");
  }
  if (command.nsid != 0) wrong("a namespace is given");
  if (command.cdw12 != command.data_length) wrong("CDW12 is not the length of the data");
  if (command.data_length % 4 != 0 || reinterpret_cast<uintptr_t>(command.data) % 4 != 0)
    wrong("unaligned data");
  if (command.data_length > relay_v2::max_batch) wrong("too much data");
  if (command.timeout <= 0ms || command.done == nullptr) wrong("no timeout, or nobody to tell");
  if (command.cdw10 == relay_v2::function::rx &&
      command.timeout <= std::chrono::milliseconds(relay_v2::parse_rx_wait(command.cdw13).wait_ms)) {
    wrong("the timeout is within the wait");
  }
  for (const auto& [id, trip] : trips_) {
    if (trip.command == &command) wrong("submitted while it is in flight");
    if (command.data != nullptr && trip.command->data == command.data)
      wrong("its buffer is in flight already");
  }
}

std::unique_ptr<SimPort::Execution> SimPort::copy_of(const Command& command, uint64_t trip) {
  auto copy = std::make_unique<Execution>();
  static_cast<Command&>(*copy) = command;
  copy->trip = trip;
  copy->done = nullptr;
  copy->next = nullptr;
  if (command.data_length > 0) {
    copy->buffer.reset(new uint8_t[command.data_length]);
    copy->data = copy->buffer.get();
    if (command.opcode == relay_v2::opcode::to_drive)
      std::memcpy(copy->data, command.data, command.data_length);
  }
  return copy;
}

// --- from the host ---

void SimPort::submit(Command& command) {
  check(command);
  placed_.push_back(&command);
}

void SimPort::ring() {
  for (Command* command : std::exchange(placed_, {})) {
    const uint64_t id = next_trip_++;
    Trip& trip = trips_[id];
    trip.command = command;
    if (trips_.size() > max_in_flight) story_.violation("%zu commands in flight", trips_.size());
    if (link_ != Link::live) {
      const Completion failed = link_ == Link::gone
                                    ? Completion{.error = ENODEV}
                                    : Completion{.error = 0, .status = not_live_status, .dw0 = 0};
      clock_.after(delay() + 1us, [this, id, failed] { arrive({id, failed, nullptr}); });
      continue;
    }
    trip.departing = copy_of(*command, id);
    trip.departing->counts = true;
    clock_.after(delay(), [this, id, generation = generation_] {
      if (generation == generation_) depart(id);
    });
    if (random_.chance(faults.duplicates)) {
      auto again = std::make_shared<std::unique_ptr<Execution>>(copy_of(*command, id));
      clock_.after(delay() + Clock::Duration(random_.below(std::chrono::nanoseconds(200ms).count())),
                   [this, again, generation = generation_] {
                     if (generation != generation_) return;
                     story_.tell("the drive sees %s %llu again", name_of(**again), sequence_of(**again));
                     execute(std::move(*again));
                     flush();
                   });
    }
  }
}

void SimPort::depart(uint64_t id) {
  Trip& trip = trips_.at(id);
  auto execution = std::move(trip.departing);
  if (random_.chance(faults.transient)) {
    const bool executed = random_.chance(500);
    story_.tell("%s %llu is told as failed, %s", name_of(*execution), sequence_of(*execution),
                executed ? "but is executed" : "and is not executed");
    clock_.after(delay(), [this, id, generation = generation_] {
      if (generation == generation_) arrive({id, {.error = 0, .status = status::aborted, .dw0 = 0}, nullptr});
    });
    if (!executed) return;
    execution->counts = false;
  }
  execute(std::move(execution));
  flush();
}

void SimPort::execute(std::unique_ptr<Execution> execution) {
  Execution& command = *execution;
  executing_[&command] = std::move(execution);
  if (!drive_->handles(command)) return story_.violation("the drive does not know %s", name_of(command));
  if (command.cdw10 == relay_v2::function::tx) {
    referee_.sees_tx(command.cdw11, sequence_of(command),
                     {static_cast<uint8_t*>(command.data), command.cdw12});
  }
  drive_->execute(command);
}

// --- from the drive ---

void SimPort::post(Command& command) {
  const auto found = executing_.find(&command);
  if (found == executing_.end())
    return story_.violation("the drive completed a command twice, or one it has not");
  auto execution = std::move(found->second);
  executing_.erase(found);
  const Completion& completion = command.completion;
  const bool ok = completion.status == status::success;
  const int code = status::errno_of(completion.status);
  if (completion.error != 0) story_.violation("the drive completed %s without a status", name_of(command));
  if (code == EPROTO || (code == EINVAL && execution->counts)) {
    story_.violation("the drive refused %s %llu with errno %d", name_of(command), sequence_of(command), code);
  }
  if (ok && command.cdw10 == relay_v2::function::attach) referee_.session_made(completion.dw0);
  if (ok && command.cdw10 == relay_v2::function::rx && completion.dw0 > 0) {
    if (completion.dw0 > command.cdw12) return story_.violation("rx gave more than the buffer holds");
    referee_.sees_rx(command.cdw11, sequence_of(command),
                     {static_cast<uint8_t*>(command.data), completion.dw0});
  }
  completed_.push_back(std::move(execution));
}

void SimPort::flush() {
  for (auto& execution : std::exchange(completed_, {})) {
    if (!execution->counts) continue;
    if (random_.chance(faults.lost)) {
      story_.tell("the completion of %s %llu is lost", name_of(*execution), sequence_of(*execution));
      if (on_lost_completion) on_lost_completion();
      continue;
    }
    auto held = std::make_shared<std::unique_ptr<Execution>>(std::move(execution));
    clock_.after(delay(), [this, held, generation = generation_] {
      if (generation != generation_) return;
      Execution& back = **held;
      arrive({back.trip, back.completion, std::move(*held)});
    });
  }
}

void SimPort::arrive(Arrived arrived) {
  arrived_.push_back(std::move(arrived));
  if (std::exchange(delivering_, true)) return;
  // A little later, so that completions come several at a time.
  clock_.after(delay() / 4, [this] { deliver(); });
}

void SimPort::deliver() {
  delivering_ = false;
  for (Arrived& arrived : std::exchange(arrived_, {})) {
    const auto found = trips_.find(arrived.trip);
    if (found == trips_.end()) continue;  // a hard fault has ended it
    Command& command = *found->second.command;
    trips_.erase(found);
    command.completion = arrived.completion;
    if (arrived.completion.ok()) {
      if (arrived.execution && command.opcode == relay_v2::opcode::to_host) {
        const bool batch = command.cdw10 == relay_v2::function::rx;
        std::memcpy(command.data, arrived.execution->data,
                    batch ? arrived.completion.dw0 : relay_v2::capability_page_size);
      }
      if (command.cdw10 != relay_v2::function::capabilities) {
        silent_until_ = silent_until();
        heard_ = clock_.now();
      }
    } else {
      story_.tell("%s %llu fails: errno %d, status %03xh", name_of(command), sequence_of(command),
                  arrived.completion.error, arrived.completion.status);
    }
    command.done(command);
  }
  if (client_ != nullptr) client_->on_batch_end();
}

// --- hard faults ---

void SimPort::interrupt(int error, const std::function<void()>& change) {
  // The last that the drive may do for commands on their way, in any order.
  for (auto& [id, trip] : trips_) {
    if (trip.departing && random_.chance(400)) {
      trip.departing->counts = false;
      story_.tell("%s %llu is executed right before", name_of(*trip.departing), sequence_of(*trip.departing));
      execute(std::move(trip.departing));
    }
    trip.departing.reset();
  }
  completed_.clear();
  ++generation_;
  change();
  executing_.clear();  // forgotten: touching them now would be an error that sanitizers see
  arrived_.clear();
  for (const auto& [id, trip] : trips_) {
    clock_.after(delay() + 1us, [this, id = id, error] {
      arrive({id, {.error = error, .status = 0, .dw0 = 0}, nullptr});
    });
  }
}

void SimPort::set_link(Link link) {
  link_ = link;
  story_.tell("the controller is %s", link == Link::live ? "live" : link == Link::gone ? "gone" : "not live");
}

}  // namespace nvsock::sim
