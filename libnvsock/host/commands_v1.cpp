#include "libnvsock/host/commands_v1.hpp"

#include <algorithm>
#include <climits>
#include <string>
#include <utility>

namespace nvsock {
namespace {

// The longest the kernel's int of milliseconds holds, 24.8 days: a read waits as long as the service in
// the drive is silent, and anything may be stalled behind a write (dialect_v1.hpp).
constexpr std::chrono::milliseconds command_timeout{INT_MAX};

// Pages kept for reuse, 4 MiB: what one bulk transfer uses.
constexpr size_t kept_pages = 1024;

}  // namespace

CommandsV1::CommandsV1(CommandPort& port, DialectCounters& counters, Owner& owner)
    : port_(port),
      traits_(port.traits()),
      counters_(counters),
      owner_(owner),
      pages_(page_size, kept_pages) {}

CommandsV1::~CommandsV1() {
  if (port_.stop()) return;
  // The drive may still write to the memory of these: it is left to it.
  for (std::unique_ptr<CommandV1>& command : commands_) {
    if (command->with_drive) static_cast<void>(command.release());
  }
}

CommandV1& CommandsV1::make(uint64_t stream, CommandV1::Kind kind) {
  CommandV1* command = nullptr;
  if (free_.empty()) {
    command = commands_.emplace_back(std::make_unique<CommandV1>()).get();
    free_.reserve(commands_.size());
  } else {
    command = free_.back();
    free_.pop_back();
    *command = CommandV1{};
  }
  command->kind = kind;
  command->home = this;
  command->stream = stream;
  command->opcode = opcode::relay_v1;
  command->data_length = relay_v1::buffer_size;
  command->timeout = command_timeout;
  command->done = [](Command& done) {
    auto& own = static_cast<CommandV1&>(done);
    own.with_drive = false;
    --own.home->counters_.in_flight_now;
    own.home->blocking_ -= own.may_block;
    own.home->owner_.on_done(own);
  };
  return *command;
}

void CommandsV1::take_page_for(CommandV1& command) {
  command.slice.buffer = pages_.take();
  command.slice.data = command.slice.buffer.data();
  command.data = command.slice.buffer.data();
}

CommandV1& CommandsV1::make_open(uint64_t stream, const Endpoint& peer) {
  CommandV1& command = make(stream, CommandV1::Kind::open);
  take_page_for(command);
  command.cdw10 = relay_v1::function::open;
  relay_v1::encode_open(command.data, peer.host, std::to_string(peer.port));
  return command;
}

CommandV1& CommandsV1::make_close(uint64_t stream, uint32_t descriptor) {
  CommandV1& command = make(stream, CommandV1::Kind::close);
  take_page_for(command);  // of no use to it, but every command has one
  command.cdw10 = relay_v1::function::close;
  command.cdw13 = descriptor;
  return command;
}

CommandV1& CommandsV1::make_read(uint64_t stream, uint32_t descriptor) {
  CommandV1& command = make(stream, CommandV1::Kind::read);
  take_page_for(command);
  command.cdw10 = relay_v1::function::comm;
  command.cdw11 = relay_v1::comm_read;
  command.cdw13 = descriptor;
  command.may_block = true;
  return command;
}

CommandV1& CommandsV1::make_write(uint64_t stream, uint32_t descriptor, Slice bytes) {
  CommandV1& command = make(stream, CommandV1::Kind::write);
  command.slice = std::move(bytes);
  command.data = const_cast<uint8_t*>(command.slice.data);
  command.cdw10 = relay_v1::function::comm;
  command.cdw11 = relay_v1::comm_write;
  command.cdw12 = command.slice.size;
  command.cdw13 = descriptor;
  return command;
}

void CommandsV1::submit(CommandV1& command) {
  command.with_drive = true;
  blocking_ += command.may_block;
  ++counters_.commands;
  counters_.max_in_flight = std::max(counters_.max_in_flight, ++counters_.in_flight_now);
  port_.submit(command);
}

void CommandsV1::recycle(CommandV1& command) {
  command.slice = {};
  free_.push_back(&command);
}

}  // namespace nvsock
