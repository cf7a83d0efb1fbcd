#include "tests/sim/port.hpp"

#include <cerrno>

namespace nvsock::sim {

using namespace std::chrono_literals;

namespace {

const char* name_of(const Command& command) {
  switch (relay_v2::function_of(command)) {
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

// As %llu wants it. Runs are too short for the high half.
unsigned long long sequence_of(const Command& command) {
  return relay_v2::parse_call(command).sequence;
}

bool is(const Command& command, uint8_t function) {
  return relay_v2::function_of(command) == function;
}

}  // namespace

// --- the drive's side ---

SimDrive::SimDrive(Clock& clock, csd::ServiceFactory& services, Random random, Story& story,
                   csd::SessionTableOptions options)
    : clock_(clock), services_(services), random_(random), story_(story), options_(std::move(options)) {
  start();
}

void SimDrive::start() {
  for (uint8_t& byte : options_.epoch) byte = static_cast<uint8_t>(random_.next());
  table_ = std::make_unique<csd::SessionTable>(clock_, services_, static_cast<csd::CompletionQueue&>(*this),
                                               options_);
  story_.tell("a drive: batches of %u, window %u, tx window %u, rx window %u, %u streams, waits of %d ms",
              options_.max_batch, options_.window, options_.tx_window, options_.rx_window,
              options_.max_streams, static_cast<int>(options_.max_wait.count()));
}

void SimDrive::forget(const Guest& from) {
  const auto of_it = [&](const Command& command) {
    const auto found = executing_.find(&command);
    return found != executing_.end() && found->second == &from;
  };
  table_->forget_commands(of_it);
  std::erase_if(executing_, [&](const auto& entry) { return entry.second == &from; });
  std::erase_if(completed_, [&](const Completed& one) { return one.from == &from; });
}

void SimDrive::restart() {
  story_.tell("the drive restarts");
  table_->controller_reset();
  executing_.clear();
  completed_.clear();
  table_.reset();
  start();
  for (Guest* const guest : std::vector(guests)) guest->drive_restarted();
}

void SimDrive::submit(Command& command, Guest& from) {
  executing_.emplace(&command, &from);
  if (!csd::SessionTable::handles(command))
    return story_.violation("the drive does not know %s", name_of(command));
  table_->execute(command, from.name());
}

void SimDrive::post(Command& command) {
  const auto execution = executing_.extract(&command);
  if (execution.empty()) return story_.violation("the drive completed a command twice, or one it has not");
  if (command.completion.error != 0)
    story_.violation("the drive completed %s without a status", name_of(command));
  execution.mapped()->posted(command);
  completed_.push_back({&command, execution.mapped()});
}

void SimDrive::flush() {
  while (!completed_.empty()) {
    Command& command = *completed_.front().command;
    completed_.pop_front();
    command.done(command);
  }
}

// --- a controller ---

SimController::SimController(SimDrive& drive, Story& story, Referee& referee, csd::HostName name)
    : drive_(drive), story_(story), referee_(referee), name_(std::move(name)) {
  drive_.guests.push_back(this);
}

SimController::~SimController() {
  std::erase(drive_.guests, static_cast<Guest*>(this));
}

PortTraits SimController::traits() const {
  return {.ordered = false,
          .max_in_flight = SimPort::max_in_flight,
          .max_blocking = SimPort::max_in_flight,
          .max_abandoned = 8,
          .max_reads_per_stream = 1};
}

void SimController::reset(bool restart) {
  story_.tell("the controller of %s is reset", name_.nqn.c_str());
  drive_.forget(*this);
  if (restart) drive_.restart();
}

void SimController::drive_restarted() {
  referee_.drive_restarted();
  if (when_restarted) when_restarted();
}

void SimController::end_session() {
  story_.tell("session %llx ends behind the host's back", static_cast<unsigned long long>(handle_));
  Command detach;
  encode(relay_v2::Call{.function = relay_v2::function::detach, .handle = handle_}, detach);
  detach.done = [](Command&) {};
  submit(detach);
  ring();
}

void SimController::submit(Command& command) {
  if (is(command, relay_v2::function::tx)) {
    referee_.sees_tx(relay_v2::parse_call(command).handle, sequence_of(command),
                     {static_cast<uint8_t*>(command.data), command.data_length});
  }
  drive_.submit(command, *this);
}

void SimController::posted(Command& command) {
  const Completion& completion = command.completion;
  const bool ok = completion.status == status::success;
  const std::span data(static_cast<uint8_t*>(command.data), command.data_length);
  const uint64_t handle = relay_v2::parse_call(command).handle;
  if (status::errno_of(completion.status) == EPROTO)
    story_.violation("the drive found fault with %s %llu", name_of(command), sequence_of(command));
  if (ok && is(command, relay_v2::function::attach)) {
    if (const auto request = relay_v2::parse_session_request(data)) handle_ = request->key.handle;
    referee_.session_made(handle_);
  }
  if (ok && is(command, relay_v2::function::tx)) referee_.sees_tx_done(handle, completion.dw0);
  if (ok && is(command, relay_v2::function::rx) && completion.dw0 > 0) {
    if (completion.dw0 > data.size()) return story_.violation("rx gave more than the buffer holds");
    referee_.sees_rx(handle, sequence_of(command), data.first(completion.dw0));
  }
}

// --- the host's side ---

void SimPort::submit(Command& command) {
  const auto wrong = [&](const char* what) { story_.violation("%s: %s", name_of(command), what); };
  const bool to_host = is(command, relay_v2::function::rx) || is(command, relay_v2::function::capabilities);
  const bool no_data = is(command, relay_v2::function::detach);
  if (command.opcode != (to_host   ? relay_v2::opcode::to_host
                         : no_data ? relay_v2::opcode::no_data
                                   : relay_v2::opcode::to_drive)) {
    wrong("the opcode is not the direction");
  }
  if (command.nsid != 0) wrong("a namespace is given");
  if (relay_v2::told_length(command) != command.data_length || command.cdw11 != 0)
    wrong("CDW10 is not the length of the data, or CDW11 not 0");
  if (command.data_length % 4 != 0 || reinterpret_cast<uintptr_t>(command.data) % 4 != 0)
    wrong("unaligned data");
  if (command.data_length > relay_v2::max_batch) wrong("too much data");
  if (command.timeout <= 0ms || command.done == nullptr) wrong("no timeout, or nobody to tell");
  if (is(command, relay_v2::function::rx) &&
      command.timeout <= std::chrono::milliseconds(relay_v2::parse_call(command).wait_ms)) {
    wrong("the timeout is within the wait");
  }
  for (const Command* other : submitted_) {
    if (command.data != nullptr && other->data == command.data) wrong("its buffer is in flight already");
  }
  if (!submitted_.insert(&command).second) wrong("submitted while it is in flight");
  if (submitted_.size() > max_in_flight) story_.violation("%zu commands in flight", submitted_.size());
  ++commands_;
  FaultPort::submit(command);
}

void SimPort::on_fault(const char* what, const Command& command) {
  story_.tell("%s %llu %s", name_of(command), sequence_of(command), what);
}

void SimPort::on_completion(const Command& command) {
  submitted_.erase(&command);
  const Completion& completion = command.completion;
  if (completion.ok()) {
    if (is(command, relay_v2::function::capabilities)) return;
    silences_ += silent();
    silent_until_ = silent_until();
    heard_ = clock_.now();
    return;
  }
  story_.tell("%s %llu fails: errno %d, status %03xh", name_of(command), sequence_of(command),
              completion.error, completion.status);
  const int code = completion.error == 0 ? status::errno_of(completion.status) : 0;
  if (code == EINVAL || code == EAGAIN)
    story_.violation("the drive refused %s %llu with errno %d", name_of(command), sequence_of(command), code);
}

void SimPort::on_live() {
  story_.tell("the controller is live");
  if (when_live) when_live();
}

}  // namespace nvsock::sim
