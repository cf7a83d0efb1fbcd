#include "tests/sim/port.hpp"

#include <cerrno>

namespace nvsock::sim {

using namespace std::chrono_literals;

namespace {

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

unsigned long long sequence_of(const Command& command) {  // as %llu wants it
  return relay_v2::sequence_of(command);
}

}  // namespace

// --- the drive's side ---

SimDrive::SimDrive(Clock& clock, csd::ServiceFactory& services, Random random, Story& story, Referee& referee,
                   csd::SessionTableOptions options)
    : clock_(clock),
      services_(services),
      random_(random),
      story_(story),
      referee_(referee),
      options_(std::move(options)) {
  start();
}

PortTraits SimDrive::traits() const {
  return {.ordered = false,
          .max_in_flight = SimPort::max_in_flight,
          .max_blocking = SimPort::max_in_flight,
          .max_abandoned = 8,
          .max_reads_per_stream = 1};
}

void SimDrive::start() {
  for (uint8_t& byte : options_.epoch) byte = static_cast<uint8_t>(random_.next());
  table_ = std::make_unique<csd::SessionTable>(clock_, services_, static_cast<csd::CompletionQueue&>(*this),
                                               options_);
  story_.tell("a drive: batches of %u, window %u, tx window %u, rx window %u, %u streams, waits of %d ms",
              options_.max_batch, options_.window, options_.tx_window, options_.rx_window,
              options_.max_streams, static_cast<int>(options_.max_wait.count()));
}

void SimDrive::reset(bool restart) {
  story_.tell("%s", restart ? "the drive restarts" : "the controller is reset");
  table_->controller_reset();
  executing_.clear();
  completed_ = {};
  if (!restart) return;
  table_.reset();
  referee_.drive_restarted();
  start();
}

void SimDrive::end_session() {
  story_.tell("session %u ends behind the host's back", handle_);
  Command detach;
  detach.opcode = relay_v2::opcode::no_data;
  detach.cdw10 = relay_v2::function::detach;
  detach.cdw11 = handle_;
  detach.done = [](Command&) {};
  submit(detach);
  flush();
}

void SimDrive::submit(Command& command) {
  executing_.insert(&command);
  if (!table_->handles(command)) return story_.violation("the drive does not know %s", name_of(command));
  if (command.cdw10 == relay_v2::function::tx) {
    referee_.sees_tx(command.cdw11, sequence_of(command),
                     {static_cast<uint8_t*>(command.data), command.cdw12});
  }
  table_->execute(command);
}

void SimDrive::post(Command& command) {
  if (executing_.erase(&command) == 0)
    return story_.violation("the drive completed a command twice, or one it has not");
  const Completion& completion = command.completion;
  const bool ok = completion.status == status::success;
  if (completion.error != 0) story_.violation("the drive completed %s without a status", name_of(command));
  if (status::errno_of(completion.status) == EPROTO)
    story_.violation("the drive found fault with %s %llu", name_of(command), sequence_of(command));
  if (ok && command.cdw10 == relay_v2::function::attach) {
    handle_ = completion.dw0;
    referee_.session_made(handle_);
  }
  if (ok && command.cdw10 == relay_v2::function::tx) referee_.sees_tx_done(command.cdw11, completion.dw0);
  if (ok && command.cdw10 == relay_v2::function::rx && completion.dw0 > 0) {
    if (completion.dw0 > command.cdw12) return story_.violation("rx gave more than the buffer holds");
    referee_.sees_rx(command.cdw11, sequence_of(command),
                     {static_cast<uint8_t*>(command.data), completion.dw0});
  }
  completed_.push(command);
}

void SimDrive::flush() {
  while (!completed_.empty()) {
    Command& command = completed_.pop();
    command.done(command);
  }
}

// --- the host's side ---

void SimPort::submit(Command& command) {
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
    if (command.cdw10 == relay_v2::function::capabilities) return;
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
