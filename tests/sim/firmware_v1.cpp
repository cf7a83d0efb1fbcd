#include "tests/sim/firmware_v1.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "libnvsock/base/number.hpp"
#include "libnvsock/host/commands_v1.hpp"
#include "libnvsock/relay/v1.hpp"

namespace nvsock::sim {

using namespace std::chrono_literals;
namespace function = relay_v1::function;

namespace {

const char* name_of(const Command& command) {
  switch (command.cdw10) {
    case function::open:
      return "open";
    case function::close:
      return "close";
    case function::comm:
      return command.cdw11 == relay_v1::comm_write ? "write" : "read";
    default:
      return "?";
  }
}

bool is_read(const Command& command) {
  return command.cdw10 == function::comm && command.cdw11 == relay_v1::comm_read;
}
bool is_write(const Command& command) {
  return command.cdw10 == function::comm && command.cdw11 == relay_v1::comm_write;
}

}  // namespace

struct FirmwareV1::Relay final : csd::Service::Observer {
  Relay(FirmwareV1& of, uint32_t at, uint32_t number)
      : firmware(of), descriptor(at), opening_number(number) {}

  // Each may be the end of it: nothing follows.
  void on_connected(int error) override {
    FirmwareV1& own = firmware;
    own.opened(*this, error);
    own.execute();
    own.flush();
  }
  void on_readable() override {
    FirmwareV1& own = firmware;
    awaiting_readable = false;
    own.serve(*this);
    own.flush();
  }
  void on_writable() override {
    FirmwareV1& own = firmware;
    own.push_write(*this);
    own.execute();
    own.flush();
  }

  FirmwareV1& firmware;
  const uint32_t descriptor;
  const uint32_t opening_number;
  std::unique_ptr<csd::Service> service;
  Command* opening = nullptr;
  Command* write = nullptr;
  size_t written = 0;  // of it
  std::deque<Command*> reads;
  bool ended = false;  // the service ended its direction
  bool lost = false;   // it reset the connection: nobody serves reads any more
  bool awaiting_readable = false;
};

FirmwareV1::FirmwareV1(VirtualClock& clock, Random random, Story& story, SimServices& services,
                       const Habits& habits)
    : clock_(clock), random_(random), story_(story), services_(services), habits_(habits), table_(relays) {
  story_.tell("a drive: %s, %u in flight, %u reads a relay, latency %.3f ms, reads of a reset %s",
              habits_.traits.ordered ? "ordered" : "unordered", habits_.traits.max_in_flight,
              habits_.traits.max_reads_per_stream,
              std::chrono::duration<double, std::milli>(habits_.latency).count(),
              habits_.loses_reads ? "are lost" : "fail");
}

// What the host has left to the drive for good ends with the drive. REQUIRES: the dialect is gone.
FirmwareV1::~FirmwareV1() {
  for (const auto& [command, held] : held_) delete static_cast<CommandV1*>(const_cast<Command*>(command));
}

unsigned FirmwareV1::connections() const {
  return static_cast<unsigned>(
      std::ranges::count_if(table_, [](const auto& relay) { return relay != nullptr; }));
}

// --- the host's side ---

unsigned long long FirmwareV1::number_of(const Held& held) {  // as %llu wants it
  return held.order;
}

void FirmwareV1::examine(const Command& command, Held& held) {
  const auto wrong = [&](const char* what) { story_.violation("%s: %s", name_of(command), what); };
  if (command.opcode != opcode::relay_v1 || command.nsid != 0) wrong("not a command of this generation");
  if (command.data_length != relay_v1::buffer_size) wrong("the buffer is not of 4096 bytes");
  if (command.data == nullptr || reinterpret_cast<uintptr_t>(command.data) % page_size != 0)
    wrong("the buffer is not a page");
  if (command.timeout < 24h * 24 || command.done == nullptr)
    wrong("a timeout that resets the controller, or nobody to tell");
  if (command.may_block != is_read(command)) wrong("reads, and nothing else, may block");
  if (held_.contains(&command)) wrong("submitted while the drive has it");
  if (!pages_.insert(command.data).second) wrong("the drive has its page already");
  if (command.cdw10 == function::open) return;
  if (command.cdw10 != function::close && command.cdw10 != function::comm) return wrong("unknown");

  const auto found = given_.find(command.cdw13);
  if (found == given_.end()) return wrong("of a descriptor that the drive did not give, or that was closed");
  Given& given = found->second;
  held.opening = given.opening;
  if (command.cdw10 == function::close) {
    given_.erase(found);
  } else if (is_read(command)) {
    if (++given.reads > habits_.traits.max_reads_per_stream) wrong("too many of one relay");
  } else {
    if (command.cdw12 < 1 || command.cdw12 > relay_v1::max_write) wrong("a length out of range");
    if (++given.writes > 1 && !habits_.traits.ordered) wrong("two in flight that may pass each other");
  }
  unsigned reads = 0;
  for (const auto& [descriptor, each] : given_) reads += each.reads;
  if (reads > habits_.traits.max_blocking) wrong("too many that may block");
}

void FirmwareV1::submit(Command& command) {
  Held held{.ticket = next_ticket_++, .order = commands_++};
  examine(command, held);
  held_[&command] = held;
  command.completion = {};
  placed_.push_back(&command);
}

void FirmwareV1::ring() {
  send_on();
  flush();
}

bool FirmwareV1::stop() {
  completed_.clear();
  placed_.clear();
  return held_.empty();
}

// As libnvsock/port/nvme_driver.hpp has it: a read never keeps the others waiting, where order does not
// matter.
Command* FirmwareV1::next_to_send() {
  const PortTraits& traits = habits_.traits;
  if (placed_.empty() || sent_ >= traits.max_in_flight) return nullptr;
  auto chosen = placed_.begin();
  if (!traits.ordered) {
    chosen = std::ranges::find_if(placed_, [](const Command* command) { return !command->may_block; });
    if (chosen == placed_.end()) chosen = placed_.begin();
  }
  if ((*chosen)->may_block && blocking_sent_ >= traits.max_blocking) return nullptr;
  Command* command = *chosen;
  placed_.erase(chosen);
  return command;
}

void FirmwareV1::send_on() {
  while (Command* command = next_to_send()) {
    Held& held = held_.at(command);
    held.sent = true;
    if (command->cdw10 == function::close) {
      closing_.insert(held.opening);
    } else if (closing_.contains(held.opening)) {
      story_.violation("%s %llu waited in the port, and its close passed it", name_of(*command),
                       number_of(held));
    }
    ++sent_;
    blocking_sent_ += command->may_block;
    if (gone_) {
      clock_.after(0us, alive_, [this, command, ticket = held.ticket] { deliver(*command, ticket); });
    } else if (habits_.latency == 0us) {
      arrived(*command, held.ticket);
    } else {
      Clock::TimePoint at = clock_.now() + trip();
      if (habits_.traits.ordered) at = last_arrival_ = std::max(at, last_arrival_);
      call_later(at - clock_.now(), [this, command, ticket = held.ticket] {
        arrived(*command, ticket);
        flush();
      });
    }
  }
}

void FirmwareV1::call_later(Clock::Duration delay, std::function<void()> call) {
  clock_.after(delay, alive_, std::move(call));
}

void FirmwareV1::complete(Command& command, uint16_t status, std::vector<uint8_t> data) {
  const uint64_t ticket = held_.at(&command).ticket;
  auto finish = [this, &command, ticket, status, data = std::move(data)] {
    const auto found = held_.find(&command);
    if (found == held_.end() || found->second.ticket != ticket) return;
    if (!data.empty()) std::memcpy(command.data, data.data(), data.size());
    command.completion = {.error = 0, .status = status, .dw0 = 0};
    deliver(command, ticket);
  };
  if (habits_.latency == 0us) return finish();
  call_later(trip(), [this, finish = std::move(finish)] {
    finish();
    flush();
  });
}

// The page is the host's again.
void FirmwareV1::deliver(Command& command, uint64_t ticket) {
  const auto found = held_.find(&command);
  if (found == held_.end() || found->second.ticket != ticket) return;
  if (gone_) command.completion = {.error = ENODEV, .status = 0, .dw0 = 0};
  if (found->second.sent) {
    --sent_;
    blocking_sent_ -= command.may_block;
  }
  story_.tell("%s %llu is done", name_of(command), number_of(found->second));
  told(command, found->second);
  held_.erase(found);
  pages_.erase(command.data);
  completed_.push(command);
  if (gone_) flush();
}

// What the host knows from here on.
void FirmwareV1::told(const Command& command, const Held& held) {
  if (command.cdw10 == function::open && command.completion.ok()) {
    const uint32_t descriptor = relay_v1::load_u32(command.data);
    if (!given_
             .try_emplace(descriptor,
                          Given{.opening = find(descriptor)->opening_number, .reads = 0, .writes = 0})
             .second)
      story_.violation("descriptor %u is given twice", descriptor);
    return;
  }
  const auto given = given_.find(command.cdw13);
  if (command.cdw10 != function::comm || given == given_.end() || given->second.opening != held.opening)
    return;
  --(is_read(command) ? given->second.reads : given->second.writes);
}

// A drive without latency completes within this what the host submits in it.
void FirmwareV1::flush() {
  if (std::exchange(flushing_, true)) return;
  do {
    completed_.deliver([this] { client_->on_batch_end(); });
    send_on();
  } while (!completed_.empty());
  flushing_ = false;
}

void FirmwareV1::vanish() {
  story_.tell("the controller is gone");
  gone_ = true;
  arrived_.clear();
  placed_.clear();
  stall(nullptr);
  for (auto& relay : table_) relay.reset();
  std::vector<std::pair<Command*, uint64_t>> all;
  for (const auto& [command, held] : held_) all.emplace_back(const_cast<Command*>(command), held.order);
  // Not by address, which differs from run to run.
  std::ranges::sort(all, {}, &std::pair<Command*, uint64_t>::second);
  lost_.clear();
  for (const auto& [command, order] : all) {
    command->completion = {.error = ENODEV, .status = 0, .dw0 = 0};
    Held& held = held_.at(command);
    if (held.sent) {
      --sent_;
      blocking_sent_ -= command->may_block;
    }
    told(*command, held);
    held_.erase(command);
    pages_.erase(command->data);
    completed_.push(*command);
  }
  flush();
}

// --- the drive's side ---

void FirmwareV1::stall(Relay* by) {
  if (stalled_by_ != nullptr && clock_.now() > stalled_at_) stalls_.emplace_back(stalled_at_, clock_.now());
  stalled_by_ = by;
  stalled_at_ = clock_.now();
}

Clock::Duration FirmwareV1::stalled_since(Clock::TimePoint then) const {
  const auto of = [then](Clock::TimePoint began, Clock::TimePoint ended) {
    return std::max(ended - std::max(began, then), Clock::Duration::zero());
  };
  Clock::Duration sum{};
  for (const auto& [began, ended] : stalls_) sum += of(began, ended);
  return stalled_by_ != nullptr ? sum + of(stalled_at_, clock_.now()) : sum;
}

void FirmwareV1::arrived(Command& command, uint64_t ticket) {
  const auto found = held_.find(&command);
  if (found == held_.end() || found->second.ticket != ticket) return;
  story_.tell("%s %llu of descriptor %d arrives", name_of(command), number_of(found->second),
              static_cast<int>(command.cdw13));
  arrived_.push_back(&command);
  execute();
}

void FirmwareV1::execute() {
  if (executing_) return;
  executing_ = true;
  while (!arrived_.empty() && stalled_by_ == nullptr) {
    Command& command = *arrived_.front();
    arrived_.pop_front();
    if (command.cdw10 == function::open) {
      open(command);
    } else if (command.cdw10 == function::close) {
      close(command);
    } else if (is_write(command)) {
      write(command);
    } else {
      read(command);
    }
  }
  executing_ = false;
}

// A command that its close has passed on the way may find that its descriptor was given away. The drive would
// execute it for the new owner, against which the host has no defence; here it finds nobody.
FirmwareV1::Relay* FirmwareV1::relay_of(const Command& command) const {
  Relay* relay = find(command.cdw13);
  return relay != nullptr && relay->opening_number == held_.at(&command).opening ? relay : nullptr;
}

FirmwareV1::Relay* FirmwareV1::find(uint32_t descriptor) const {
  const uint32_t index = descriptor - habits_.first_descriptor;
  return index < table_.size() ? table_[index].get() : nullptr;
}

void FirmwareV1::open(Command& command) {
  const auto* fields = static_cast<const char*>(command.data);
  const std::string node(relay_v1::field_text(fields, relay_v1::node_size));
  uint16_t port = 0;
  parse_number(relay_v1::field_text(fields + relay_v1::node_size, relay_v1::service_size), port);
  const auto free = std::ranges::find_if(table_, [](const auto& relay) { return relay == nullptr; });
  if (free == table_.end()) {
    story_.tell("open of port %u: all relays are taken", port);
    found_full_.insert(port);
    return complete(command, status::internal_error);
  }
  const uint32_t descriptor = habits_.first_descriptor + static_cast<uint32_t>(free - table_.begin());
  *free = std::make_unique<Relay>(*this, descriptor, ++openings_);
  Relay& relay = **free;
  relay.opening = &command;
  relay.service = services_.connect(
      csd::Client{},
      {.type = SocketType::stream, .family = relay_v2::Family::ipv4, .port = port, .node = node}, relay);
  stall(&relay);
  const uint64_t ticket = held_.at(&command).ticket;
  call_later(connect_takes, [this, &command, ticket, descriptor] {
    const auto held = held_.find(&command);
    Relay* waits = find(descriptor);
    if (held == held_.end() || held->second.ticket != ticket || waits == nullptr ||
        waits->opening != &command)
      return;
    opened(*waits, ETIMEDOUT);
    execute();
    flush();
  });
}

// May destroy the relay.
void FirmwareV1::opened(Relay& relay, int error) {
  stall(nullptr);
  Command& command = *std::exchange(relay.opening, nullptr);
  if (error == 0) {
    std::vector<uint8_t> answer(4);
    relay_v1::store_u32(answer.data(), relay.descriptor);
    return complete(command, status::success, std::move(answer));
  }
  table_[relay.descriptor - habits_.first_descriptor].reset();
  complete(command, status::internal_error);
}

void FirmwareV1::write(Command& command) {
  Relay* relay = relay_of(command);
  if (relay == nullptr) return complete(command, status::internal_error);
  relay->write = &command;
  relay->written = 0;
  push_write(*relay);
}

void FirmwareV1::push_write(Relay& relay) {
  stall(nullptr);
  Command& command = *relay.write;
  while (relay.written < command.cdw12) {
    const ssize_t sent = relay.service->send(
        {static_cast<const uint8_t*>(command.data) + relay.written, command.cdw12 - relay.written});
    if (sent == -EAGAIN) {
      stall(&relay);
      return relay.service->await_writable();
    }
    if (sent < 0) {
      relay.write = nullptr;
      complete(command, status::internal_error);
      return lost_connection(relay);  // the error is taken: no receive() tells it to the reads
    }
    relay.written += static_cast<size_t>(sent);
  }
  relay.write = nullptr;
  complete(command, status::success);
}

void FirmwareV1::read(Command& command) {
  std::memset(command.data, 0xdd, page_size);
  for (Command* lost : lost_) std::memset(lost->data, 0xdd, page_size);  // as it may, for ever
  Relay* relay = relay_of(command);
  if (relay == nullptr || relay->reads.size() == relay_v1::max_queued_reads)
    return complete(command, status::internal_error);
  relay->reads.push_back(&command);
  if (relay->lost) return lost_connection(*relay);
  serve(*relay);
}

void FirmwareV1::serve(Relay& relay) {
  while (!relay.reads.empty() && !relay.lost) {
    if (relay.ended) return end_reads(relay, status::success);
    std::vector<uint8_t> answer(page_size);
    bool datagram = false;
    const ssize_t size = relay.service->receive(
        std::span(answer).subspan(relay_v1::read_header, relay_v1::max_read), datagram);
    if (size == -EAGAIN) {
      if (!std::exchange(relay.awaiting_readable, true)) relay.service->await_readable();
      return;
    }
    if (size < 0) return lost_connection(relay);
    if (size == 0) {
      relay.ended = true;
      continue;
    }
    relay_v1::store_u32(answer.data(), static_cast<uint32_t>(size));
    answer.resize(relay_v1::read_header + static_cast<size_t>(size));
    Command& command = *relay.reads.front();
    relay.reads.pop_front();
    complete(command, status::success, std::move(answer));
  }
}

void FirmwareV1::end_reads(Relay& relay, uint16_t status) {
  for (Command* command : std::exchange(relay.reads, {})) complete(*command, status, std::vector<uint8_t>(4));
}

// The service has reset it.
void FirmwareV1::lost_connection(Relay& relay) {
  relay.lost = true;
  if (!habits_.loses_reads) return end_reads(relay, status::internal_error);
  for (Command* command : std::exchange(relay.reads, {})) {
    lost_.push_back(command);
    story_.tell("a read of descriptor %u is lost", relay.descriptor);
  }
}

void FirmwareV1::close(Command& command) {
  if (Relay* relay = relay_of(command)) {
    if (!relay->lost) end_reads(*relay, status::success);
    relay->service->close_in_order();
    table_[relay->descriptor - habits_.first_descriptor].reset();
  }
  complete(command, status::success);  // closing twice succeeds
}

}  // namespace nvsock::sim
