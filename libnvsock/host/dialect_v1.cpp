#include "libnvsock/host/dialect_v1.hpp"

#include <algorithm>
#include <climits>

#include "libnvsock/host/stream_v1.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;

// The longest the kernel's int of milliseconds holds, 24.8 days: a read waits as long as the service in
// the drive is silent, and anything may be stalled behind a write (see the header).
constexpr std::chrono::milliseconds command_timeout{INT_MAX};

// A read that reached its timeout would reset the controller and end every stream; before that, the one
// silent stream is ended.
constexpr auto quiet_limit = 24h * 24;
constexpr auto quiet_check = 24h;

// Pages kept for reuse, 4 MiB: what one bulk transfer uses.
constexpr size_t kept_pages = 1024;

}  // namespace

DialectV1::DialectV1(Clock& clock, CommandPort& port, DialectOptions options)
    : clock_(clock),
      port_(port),
      traits_(port.traits()),
      options_(std::move(options)),
      capacity_(std::min(options_.relays, traits_.max_blocking)),
      pages_(page_size, kept_pages),
      quiet_timer_(clock_.make_timer()) {
  port_.attach(this);
  end_quiet_streams();
}

DialectV1::~DialectV1() {
  if (port_.stop()) return;
  // The drive may still write to the memory of these: it is left to it.
  for (std::unique_ptr<CommandV1>& command : commands_) {
    if (command->with_drive) static_cast<void>(command.release());
  }
}

Result<StreamHandle> DialectV1::connect(const Endpoint& endpoint, StreamObserver* observer) {
  if (endpoint.type != SocketType::stream) {
    return Error{EPROTONOSUPPORT, "cannot connect to " + endpoint.path() +
                                      ": a drive of the first generation carries TCP only"};
  }
  Endpoint peer = endpoint;
  if (peer.kind == Endpoint::Kind::name && peer.host == "localhost") {  // RFC 6761 section 6.3
    peer.kind = Endpoint::Kind::ipv4;
    peer.host = "127.0.0.1";
  }
  if (peer.kind == Endpoint::Kind::ipv6) {
    return Error{EAFNOSUPPORT, "cannot connect to " + peer.text() + ": the drive takes IPv4 addresses only"};
  }
  if (peer.kind == Endpoint::Kind::name) {
    return Error{EHOSTUNREACH, "cannot connect to " + peer.text() +
                                   ": the drive does not resolve names; give an IPv4 address"};
  }
  if (lost_) return Error{ENODEV, "cannot connect to " + peer.text() + ": the drive is gone"};
  if (counters_.abandoned_now >= traits_.max_abandoned) {
    return Error{ENFILE, "cannot connect to " + peer.text() + ": the drive never completed " +
                             std::to_string(counters_.abandoned_now) + " commands; reset the controller"};
  }
  if (counters_.streams_now >= traits_.max_blocking && closing_ == 0) {
    return Error{ENFILE, "cannot connect to " + peer.text() + ": all " +
                             std::to_string(traits_.max_blocking) +
                             " connections this device allows are open"};
  }

  const uint64_t id = next_id_++;
  auto& stream = *streams_.emplace(id, std::make_unique<StreamV1>(*this, id, peer, observer)).first->second;
  if (!relay_free() && closing_ > 0) {
    waiting_.push_back(id);
  } else {
    stream.start_open();
  }
  return StreamHandle(&stream);
}

Stream* DialectV1::find_stream(uint64_t id) const {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second.get();
}

void DialectV1::for_each_stream(const std::function<void(const Stream&)>& visit) const {
  for (const auto& [id, stream] : streams_) visit(*stream);
}

// --- commands ---

CommandV1& DialectV1::make_command(uint64_t stream, CommandV1::Kind kind) {
  CommandV1* command = nullptr;
  if (free_commands_.empty()) {
    command = commands_.emplace_back(std::make_unique<CommandV1>()).get();
    free_commands_.reserve(commands_.size());
  } else {
    command = free_commands_.back();
    free_commands_.pop_back();
    *command = CommandV1{};
  }
  command->kind = kind;
  command->dialect = this;
  command->stream = stream;
  command->opcode = opcode::relay_v1;
  command->data_length = relay_v1::buffer_size;
  command->timeout = command_timeout;
  command->done = [](Command& done) {
    auto& own = static_cast<CommandV1&>(done);
    own.dialect->on_done(own);
  };
  if (kind != CommandV1::Kind::write) {  // a write sends what the queue holds
    command->slice.buffer = pages_.take();
    command->slice.data = command->slice.buffer.data();
    command->data = command->slice.buffer.data();
  }
  return *command;
}

CommandV1& DialectV1::make_close(uint64_t stream, uint32_t descriptor) {
  CommandV1& command = make_command(stream, CommandV1::Kind::close);
  command.cdw10 = relay_v1::function::close;
  command.cdw13 = descriptor;
  return command;
}

void DialectV1::submit(CommandV1& command) {
  command.with_drive = true;
  ++counters_.commands;
  counters_.max_in_flight = std::max(counters_.max_in_flight, ++counters_.in_flight_now);
  port_.submit(command);
}

void DialectV1::on_done(CommandV1& command) {
  command.with_drive = false;
  --counters_.in_flight_now;
  const auto found = streams_.find(command.stream);
  if (found == streams_.end() || found->second->phase_ == StreamV1::Phase::closed) {
    on_orphan_done(command);
  } else {
    found->second->on_done(command);
  }
}

// A command its stream gave up on has completed after all.
void DialectV1::on_orphan_done(CommandV1& command) {
  if (counters_.abandoned_now > 0) --counters_.abandoned_now;
  if (command.kind == CommandV1::Kind::open && command.completion.ok()) {
    // Nobody wants this relay any more. The close is an orphan from the start.
    ++counters_.abandoned_now;
    submit(make_close(0, relay_v1::load_u32(command.data)));
    port_.ring();
  } else if (command.kind == CommandV1::Kind::open || command.kind == CommandV1::Kind::close) {
    relay_freed();
  }
  recycle(command);
}

void DialectV1::recycle(CommandV1& command) {
  command.slice = {};
  free_commands_.push_back(&command);
}

// --- streams ---

void DialectV1::destroy(StreamV1& stream) {
  streams_.erase(stream.id());
}

void DialectV1::changed(StreamV1& stream) {
  if (stream.changed_) return;
  stream.changed_ = true;
  changed_.push_back(stream.id());
}

void DialectV1::on_batch_end() {
  // Programs answered here may write and read at once, which completes further commands: the outermost
  // call goes on until none is left.
  if (!telling_.empty()) return;
  while (!changed_.empty()) {
    std::swap(changed_, telling_);
    for (const uint64_t id : telling_) {
      const auto found = streams_.find(id);
      if (found == streams_.end()) continue;
      found->second->changed_ = false;
      found->second->on_batch_end();
    }
    for (const uint64_t id : telling_) {
      const auto found = streams_.find(id);
      if (found != streams_.end()) found->second->fetch();
    }
    telling_.clear();
  }
}

void DialectV1::relay_freed() {
  --counters_.streams_now;
  start_waiting();
}

// Its relay may stay taken for good: whoever waits for it must not.
void DialectV1::close_given_up() {
  --closing_;
  start_waiting();
  on_batch_end();  // a timer brought us here, no batch
}

// Without a close to wait for, an open goes to the drive all the same, which may have more relays than it
// is said to have; only the port's own limit is final.
void DialectV1::start_waiting() {
  while (!waiting_.empty() && (relay_free() || closing_ == 0)) {
    const auto found = streams_.find(waiting_.front());
    waiting_.pop_front();
    if (found == streams_.end() || found->second->phase_ != StreamV1::Phase::waiting) continue;
    if (counters_.streams_now < traits_.max_blocking) {
      found->second->start_open();
    } else {
      found->second->break_off(ENFILE);
      changed(*found->second);
    }
  }
}

void DialectV1::device_lost(int code) {
  if (std::exchange(lost_, true)) return;
  log(LogLevel::error, "the drive is gone (errno " + std::to_string(code) + "); every connection ends");
  for (auto& [id, stream] : streams_) {
    if (stream->broken_) continue;
    stream->break_off(code);
    changed(*stream);
  }
}

void DialectV1::end_quiet_streams() {
  std::vector<uint64_t> quiet;
  const auto limit = clock_.now() - quiet_limit;
  for (auto& [id, stream] : streams_) {
    if (stream->phase_ == StreamV1::Phase::open && stream->reads_ > 0 && stream->heard_ <= limit)
      quiet.push_back(id);
  }
  for (const uint64_t id : quiet) {  // ending one may destroy others
    const auto found = streams_.find(id);
    if (found == streams_.end()) continue;
    log(LogLevel::warning,
        found->second->peer().text() + " was silent for 24 days, the longest a command may wait");
    changed(*found->second);
    found->second->break_off(ETIMEDOUT);
  }
  on_batch_end();
  quiet_timer_->arm(quiet_check, [this] { end_quiet_streams(); });
}

}  // namespace nvsock
