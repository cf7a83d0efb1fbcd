#include "libnvsock/host/dialect_v1.hpp"

#include <algorithm>
#include <utility>

#include "libnvsock/socket/program_errno.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;

// A read that reached its timeout would reset the controller and end every stream; before that, the one
// silent stream is ended.
constexpr auto quiet_limit = 24h * 24;
constexpr auto quiet_check = 24h;

}  // namespace

DialectV1::DialectV1(Clock& clock, CommandPort& port, DialectV1Options options)
    : options_(std::move(options)),
      commands_(port, counters_, static_cast<CommandsV1::Owner&>(*this)),
      shared_{.owner = *this,
              .clock = clock,
              .commands = commands_,
              .counters = counters_,
              .log = options_.log,
              .relays = options_.relays,
              .connect_timeout = options_.connect_timeout,
              .drain_timeout = options_.drain_timeout},
      capacity_(std::min(options_.relays, commands_.traits().max_blocking)),
      quiet_timer_(clock.make_timer()) {
  port.attach(this);
  end_quiet_streams();
}

Result<StreamHandle> DialectV1::connect(const Endpoint& endpoint, StreamObserver* observer) {
  if (endpoint.type != SocketType::stream) {
    return Error{file_errno(Cause::no_datagrams), "cannot connect to " + endpoint.path() +
                                                      ": a drive of the first generation carries TCP only"};
  }
  Endpoint peer = endpoint;
  if (peer.kind == Endpoint::Kind::name && peer.host == "localhost") {  // RFC 6761 section 6.3
    peer.kind = Endpoint::Kind::ipv4;
    peer.host = "127.0.0.1";
  }
  if (peer.kind == Endpoint::Kind::ipv6) {
    return Error{file_errno(Cause::no_ipv6),
                 "cannot connect to " + peer.text() + ": the drive takes IPv4 addresses only"};
  }
  if (peer.kind == Endpoint::Kind::name) {
    return Error{file_errno(Cause::no_names), "cannot connect to " + peer.text() +
                                                  ": the drive does not resolve names; give an IPv4 address"};
  }
  if (lost_)
    return Error{file_errno(Cause::drive_gone), "cannot connect to " + peer.text() + ": the drive is gone"};
  const PortTraits& traits = commands_.traits();
  if (counters_.abandoned_now >= traits.max_abandoned) {
    return Error{file_errno(Cause::drive_full),
                 "cannot connect to " + peer.text() + ": the drive never completed " +
                     std::to_string(counters_.abandoned_now) + " commands; reset the controller"};
  }
  if (counters_.streams_now >= traits.max_blocking && closing_ == 0) {
    return Error{file_errno(Cause::drive_full), "cannot connect to " + peer.text() + ": all " +
                                                    std::to_string(traits.max_blocking) +
                                                    " connections this device allows are open"};
  }

  const uint64_t id = next_id_++;
  StreamV1& stream =
      *streams_.emplace(id, std::make_unique<StreamV1>(shared_, id, peer, observer)).first->second;
  if (!relay_free() && closing_ > 0) {
    waiting_.push_back(id);
  } else {
    stream.start_open();
  }
  return StreamHandle(&stream);
}

StreamV1* DialectV1::find(uint64_t id) const {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second.get();
}

Stream* DialectV1::find_stream(uint64_t id) const {
  return find(id);
}

void DialectV1::for_each_stream(const std::function<void(const Stream&)>& visit) const {
  for (const auto& [id, stream] : streams_) visit(*stream);
}

// --- commands ---

void DialectV1::on_done(CommandV1& command) {
  StreamV1* stream = find(command.stream);
  stream == nullptr || stream->closed() ? on_orphan_done(command) : stream->on_done(command);
}

// A command its stream gave up on has completed after all.
void DialectV1::on_orphan_done(CommandV1& command) {
  if (counters_.abandoned_now > 0) --counters_.abandoned_now;
  if (command.kind == CommandV1::Kind::open && command.completion.ok()) {
    // Nobody wants this relay any more. The close is an orphan from the start.
    ++counters_.abandoned_now;
    commands_.submit(commands_.make_close(0, relay_v1::load_u32(command.data)));
    commands_.ring();
  } else if (command.kind == CommandV1::Kind::open || command.kind == CommandV1::Kind::close) {
    relay_freed();
  }
  commands_.recycle(command);
}

// --- streams ---

void DialectV1::destroy(StreamV1& stream) {
  streams_.erase(stream.id());
}

void DialectV1::list_changed(StreamV1& stream) {
  if (!std::exchange(stream.listed.changed, true)) changed_.push_back(stream.id());
}

void DialectV1::list_starved(StreamV1& stream) {
  if (!std::exchange(stream.listed.starved, true)) starved_.push_back(stream.id());
}

void DialectV1::on_batch_end() {
  // Programs answered here may write and read at once, which completes further commands: the outermost
  // call goes on until none is left.
  if (!telling_.empty()) return;
  while (!changed_.empty()) {
    std::swap(changed_, telling_);
    for (const uint64_t id : telling_) {
      StreamV1* stream = find(id);
      if (stream == nullptr) continue;
      stream->listed.changed = false;
      stream->done() ? destroy(*stream) : stream->tell();
    }
    for (const uint64_t id : telling_) {
      if (StreamV1* stream = find(id)) stream->fetch();
    }
    telling_.clear();
  }
  feed_starved();
}

// Once for each, since those that find no room again are listed again.
void DialectV1::feed_starved() {
  if (starved_.empty() || !commands_.room_for_read()) return;
  for (const uint64_t id : std::exchange(starved_, {})) {
    StreamV1* stream = find(id);
    if (stream == nullptr) continue;
    stream->listed.starved = false;
    stream->fetch();
  }
}

void DialectV1::relay_freed() {
  --counters_.streams_now;
  start_waiting();
}

void DialectV1::close_done() {
  --closing_;
  relay_freed();
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
    StreamV1* stream = find(waiting_.front());
    waiting_.pop_front();
    if (stream == nullptr || !stream->waiting()) continue;
    counters_.streams_now < commands_.traits().max_blocking ? stream->start_open()
                                                            : stream->end(file_errno(Cause::drive_full));
  }
}

void DialectV1::drive_gone(int error) {
  if (std::exchange(lost_, true)) return;
  log(LogLevel::error, "the drive is gone (errno " + std::to_string(error) + "); every connection ends");
  for (auto& [id, stream] : streams_) {
    if (stream->broken()) continue;
    counters_.lost.add(stream->undelivered());
    stream->end(error);
  }
}

// --- the end of the program ---

void DialectV1::finish() {
  for (auto& [id, stream] : streams_) stream->finish();
}

Undelivered DialectV1::undelivered() const {
  Undelivered left;
  for (const auto& [id, stream] : streams_) left.add(stream->undelivered());
  return left;
}

void DialectV1::give_up() {
  std::vector<uint64_t> all;
  for (const auto& [id, stream] : streams_) all.push_back(id);
  for (const uint64_t id : all) {
    if (StreamV1* stream = find(id)) stream->give_up();
  }
}

void DialectV1::end_quiet_streams() {
  std::vector<uint64_t> quiet;
  const auto limit = shared_.clock.now() - quiet_limit;
  for (auto& [id, stream] : streams_) {
    if (stream->quiet_since(limit)) quiet.push_back(id);
  }
  for (const uint64_t id : quiet) {  // ending one may destroy others
    StreamV1* stream = find(id);
    if (stream == nullptr) continue;
    log(LogLevel::warning, stream->peer().text() + " was silent for 24 days, the longest a command may wait");
    stream->end(file_errno(Cause::timed_out));
  }
  on_batch_end();
  quiet_timer_->arm(quiet_check, [this] { end_quiet_streams(); });
}

}  // namespace nvsock
