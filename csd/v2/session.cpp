#include "csd/v2/session.hpp"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <utility>

namespace nvsock::csd {

using relay_v2::BatchWriter;
using relay_v2::Frame;
using relay_v2::FrameType;

namespace {

// What a stream may put into a batch while others wait: two of them share the largest batch.
constexpr size_t quantum = 64 * 1024;

// A flow of datagrams ends in the round after so many in which it carried none: one timer for all of them,
// and nothing but a store for each datagram.
constexpr unsigned quiet_rounds = 5;

}  // namespace

Session::Session(const Surroundings& surroundings, Identity identity)
    : around_(surroundings),
      identity_(std::move(identity)),
      made_(surroundings.clock.now()),
      used_(made_),
      held_(surroundings.options.tx_window),
      kept_(surroundings.options.rx_window),
      waiting_(surroundings.options.rx_window),
      timer_(surroundings.clock.make_timer()),
      flow_timer_(surroundings.clock.make_timer()) {}

Session::~Session() {
  around_.lingering.leave(*lingering_);
}

void Session::complete(Command& command, uint16_t status, uint32_t dw0) {
  command.completion = {.error = 0, .status = status, .dw0 = dw0};
  around_.completions.post(command);
}

// Most batches are small; a large block for each would cost 128 KiB for a WINDOW. (Not std::ranges::copy,
// which goes byte by byte from a span to a pointer in libstdc++ 12.)
Session::Bytes Session::copy(std::span<const uint8_t> bytes) {
  Bytes kept{.buffer = (bytes.size() <= page_size ? around_.small : around_.large).take(),
             .size = static_cast<uint32_t>(bytes.size())};
  std::memcpy(kept.buffer.data(), bytes.data(), bytes.size());
  return kept;
}

// Of a command that is about to complete with these bytes.
Session::Bytes Session::keep(const Command& command, std::span<const uint8_t> bytes) {
  const bool whole = command.block != nullptr && *command.block && command.block->data() == command.data;
  if (!whole || bytes.size() <= page_size) return copy(bytes);
  return {.buffer = *command.block, .size = static_cast<uint32_t>(bytes.size())};
}

// Section 5.2: a session with a command that waits is never without.
Clock::TimePoint Session::lease_end() const {
  const bool waits =
      std::ranges::any_of(waiting_, [](const Waiting& slot) { return slot.command != nullptr; });
  return (waits ? around_.clock.now() : used_) + around_.options.lease;
}

Undelivered Session::undelivered() const {
  Undelivered left;
  for (const auto& [number, channel] : numbers_) {
    if (const SessionStream* const stream = channel->as_stream()) left.add(stream->queued());
  }
  return left;
}

void Session::end(End how) {
  for (auto& [number, channel] : numbers_) {
    SessionStream* const stream = channel->as_stream();
    if (stream == nullptr || how == End::abort) continue;
    static_cast<void>(channel.release());
    around_.lingering.add(std::unique_ptr<SessionStream>(stream), lingering_);
  }
  numbers_.clear();
  for (Waiting& slot : waiting_) {
    if (slot.command != nullptr)
      complete(*std::exchange(slot.command, nullptr), status::vendor_errno(ESTALE));
  }
}

void Session::forget_commands(const std::function<bool(const Command&)>& whose) {
  for (Waiting& slot : waiting_) {
    if (slot.command == nullptr || !whose(*slot.command)) continue;
    slot.command = nullptr;
    touch();  // the lease begins where the waiting ended
  }
}

// --- from the host: section 5.1 ---

bool Session::tx(Command& command, const relay_v2::Call& call) {
  touch();
  const uint64_t sequence = relay_v2::nearest_sequence(call.sequence, expected_);
  const std::span bytes(static_cast<const uint8_t*>(command.data), command.data_length);
  if (sequence == 0 || bytes.size() > around_.options.max_batch)
    return complete(command, status::vendor_errno(EINVAL)), true;
  if (sequence >= expected_ && sequence - expected_ >= held_.size()) {
    return complete(command, status::vendor_errno(EAGAIN)), true;
  }
  const bool repeated = sequence < expected_ || held(sequence).buffer;
  if (repeated) {
    ++counters_.batches_repeated;
  } else {
    const bool good = sequence == expected_
                          ? apply(bytes, sequence)
                          : relay_v2::Batch::parse(bytes, sequence, relay_v2::Batch::From::host).has_value();
    if (!good) return complete(command, status::vendor_errno(EPROTO)), false;
    if (sequence > expected_) {
      held(sequence) = copy(bytes);
    } else {
      ++expected_;
    }
    while (held(expected_).buffer) {
      const Bytes next = std::exchange(held(expected_), {});
      if (!apply(next.span(), expected_)) return complete(command, status::vendor_errno(EPROTO)), false;
      ++expected_;
    }
  }
  complete(command, status::success, static_cast<uint32_t>(expected_));
  make_batches();
  return true;
}

bool Session::apply(std::span<const uint8_t> bytes, uint64_t sequence) {
  auto batch = relay_v2::Batch::parse(bytes, sequence, relay_v2::Batch::From::host);
  if (!batch || !note_taken(batch->taken())) return false;
  while (const std::optional<Frame> frame = batch->next()) {
    if (!apply(*frame)) return false;
  }
  return true;
}

// Section 4: no host has taken what was not made, or gives back what it has.
bool Session::note_taken(uint32_t low) {
  const uint64_t taken = relay_v2::nearest_sequence(low, next_ - 1);
  if (taken < taken_ || taken >= next_) return false;
  taken_ = taken;
  of_drive_.taken(taken);
  return true;
}

bool Session::apply(const Frame& frame) {
  switch (frame.type) {
    case FrameType::stat:
      ++stats_due_;
      return true;
    case FrameType::open:
      return open(frame);
    case FrameType::listen:
      return listen(frame);
    default:
      break;
  }
  const auto found = numbers_.find(frame.stream);
  if (found == numbers_.end()) return was_used(frame.stream);  // section 7: ignored when closed
  Channel& channel = *found->second;
  if (frame.type == FrameType::reset) {
    reset(channel, static_cast<int>(frame.value));
    return true;
  }
  if (!channel.take(frame)) return false;
  remove_if_done(channel);
  return true;
}

// Section 7: any that is not in use.
bool Session::claim(uint32_t number) {
  if (number % 2 == 0 || numbers_.contains(number)) return false;
  last_of_host_ = std::max(last_of_host_, number);
  return true;
}

bool Session::was_used(uint32_t number) const {
  return number % 2 == 1 ? number <= last_of_host_ : of_drive_.used(number);
}

// Refusals that the host does not fetch are bounded too. A host that goes on opening beyond the number of
// streams it was told breaks section 3.
bool Session::refuse(uint32_t number, int error) {
  if (refused_ == around_.options.max_streams) return false;
  ++refused_;
  ++counters_.opens_refused;
  auto refusal = std::make_unique<Refusal>(number, error);
  list_control(*refusal);
  numbers_.emplace(number, std::move(refusal));
  return true;
}

// Closed streams count no more as streams, but what they hold does.
int Session::no_room() const {
  if (numbers_.size() - refused_ >= around_.options.max_streams) return ENFILE;
  const bool full = lingering_->streams >= around_.options.linger_streams ||
                    lingering_->bytes >= around_.options.linger_bytes;
  return full ? ENOBUFS : 0;
}

bool Session::open(const Frame& frame) {
  if (!claim(frame.stream)) return false;
  // Batch::parse() has checked the target; nothing from outside is worth relying on that here.
  const auto target = relay_v2::parse_target(frame.payload);
  if (!target || (target->type == SocketType::datagram && !has(relay_v2::feature::datagrams))) return false;
  if (const int error = no_room(); error != 0) return refuse(frame.stream, error);
  auto stream =
      std::make_unique<SessionStream>(static_cast<StreamOwner&>(*this), frame.stream,
                                      SessionStream::Terms{.window = around_.options.window,
                                                           .largest_window = around_.options.largest_window,
                                                           .credit = frame.value,
                                                           .datagram = target->type == SocketType::datagram});
  stream->connecting(around_.services.connect(identity_.client, *target, *stream));
  if (stream->is_datagram()) watch_flows();
  numbers_.emplace(frame.stream, std::move(stream));
  return true;
}

bool Session::listen(const Frame& frame) {
  if (!has(relay_v2::feature::listeners) || !claim(frame.stream)) return false;
  const auto target = relay_v2::parse_target(frame.payload);
  if (!target) return false;
  if (numbers_.size() - refused_ >= around_.options.max_streams) return refuse(frame.stream, ENFILE);
  auto listener = std::make_unique<SessionListener>(static_cast<Acceptor&>(*this), frame.stream, frame.value);
  if (const int error = listener->listen(around_.services, *target); error != 0)
    return refuse(frame.stream, error);
  list_control(*listener);
  numbers_.emplace(frame.stream, std::move(listener));
  return true;
}

// Its number is free, for us to use again when the host has taken the last batch with a frame of it. That may
// be the one that is being made.
std::unique_ptr<Channel> Session::take_out(Channel& channel) {
  const uint32_t number = channel.number();
  if (number % 2 == 0) of_drive_.close(number, next_ - 1);
  if (channel.is_refusal()) --refused_;
  return std::move(numbers_.extract(number).mapped());
}

// What it still holds is delivered by the linger list.
void Session::close(Channel& channel) {
  std::unique_ptr<Channel> closed = take_out(channel);
  if (SessionStream* const stream = closed->as_stream()) {
    static_cast<void>(closed.release());
    around_.lingering.add(std::unique_ptr<SessionStream>(stream), lingering_);
  }
}

// Section 7: with errno 0 what the host sent before is still delivered; with another, the service sees a
// reset. Of a listener, connections that the host was not told of are reset: it would not know any more whose
// they are.
void Session::reset(Channel& channel, int error) {
  for (SessionStream* const untold : channel.untold()) take_out(*untold);
  error == 0 ? close(channel) : static_cast<void>(take_out(channel));
}

// A stream that is over for the host counts no more, even while its service has not taken everything yet.
void Session::remove_if_done(Channel& channel) {
  if (channel.done()) close(channel);
}

// --- towards the host: section 5.2 ---

void Session::rx(Command& command, const relay_v2::Call& call) {
  touch();
  const uint64_t sequence = relay_v2::nearest_sequence(call.sequence, next_);
  // A distance beyond the start acknowledges nothing.
  const uint64_t acknowledged = sequence > call.distance ? sequence - call.distance : 0;
  const uint64_t oldest = std::max(oldest_, acknowledged);
  if (command.data_length < relay_v2::min_batch || sequence < oldest || sequence - oldest >= kept_.size() ||
      acknowledged > next_) {
    return complete(command, status::vendor_errno(EINVAL));
  }
  for (; oldest_ < oldest; ++oldest_) kept(oldest_) = {};
  if (sequence < next_) return repeat(command, sequence);
  wait(command, sequence, std::min(std::chrono::milliseconds(call.wait_ms), around_.options.max_wait));
}

void Session::repeat(Command& command, uint64_t sequence) {
  const auto bytes = kept(sequence).span();
  if (bytes.size() > command.data_length) return complete(command, status::vendor_errno(EINVAL));
  ++counters_.batches_repeated;
  std::memcpy(command.data, bytes.data(), bytes.size());
  complete(command, status::success, static_cast<uint32_t>(bytes.size()));
}

void Session::wait(Command& command, uint64_t sequence, std::chrono::milliseconds time) {
  Waiting& slot = waiting(sequence);
  if (slot.command != nullptr) complete(*slot.command, status::success, 0);
  slot = {.command = &command, .deadline = around_.clock.now() + time};
  make_batches();
  if (slot.command != &command) return;
  if (time.count() > 0) return arm(slot.deadline);
  slot.command = nullptr;
  complete(command, status::success, 0);
}

bool Session::make_batches() {
  bool made = false;
  while (Command* const command = waiting(next_).command) {
    const std::span buffer(static_cast<uint8_t*>(command->data),
                           std::min(command->data_length, around_.options.max_batch));
    BatchWriter batch(buffer);
    const uint64_t sequence = next_++;
    build(batch);
    if (batch.empty()) {
      --next_;
      break;
    }
    const uint32_t size = batch.finish(sequence, expected_ - 1);
    waiting(sequence).command = nullptr;
    kept(sequence) = keep(*command, buffer.first(size));
    complete(*command, status::success, size);
    made = true;
  }
  if (made) touch();
  return made;
}

void Session::build(BatchWriter& batch) {
  if (!build_stats(batch)) return;
  if (!build_control(batch)) return;
  build_data(batch);
  build_control(batch);  // what reading brought about: FIN, RESET
}

bool Session::build_stats(BatchWriter& batch) {
  if (stats_due_ == 0) return true;
  relay_v2::Counters now = counters_;
  now.streams_now = static_cast<uint64_t>(std::ranges::count_if(
      numbers_, [](const auto& entry) { return entry.second->as_stream() != nullptr; }));
  now.lingering_bytes = lingering_->bytes;
  now.lingering_streams = lingering_->streams;
  now.lingering_lost = lingering_->lost;
  now.memory = memory();
  now.age_ms = static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(around_.clock.now() - made_).count());
  for (; stats_due_ > 0; --stats_due_) {
    if (!batch.fits(relay_v2::counters_size)) return false;
    encode(now, batch.append(FrameType::stat, 0, 0, relay_v2::counters_size));
  }
  return true;
}

// What it holds of others' bytes, batches and streams; what the operating system holds for its sockets is not
// known here.
uint64_t Session::memory() const {
  uint64_t bytes = undelivered().bytes + lingering_->bytes + scratch_.size();
  for (const std::vector<Bytes>* batches : {&held_, &kept_}) {
    for (const Bytes& batch : *batches) bytes += batch.buffer ? batch.buffer.capacity() : 0;
  }
  return bytes + (numbers_.size() + lingering_->streams) * sizeof(SessionStream);
}

bool Session::build_control(BatchWriter& batch) {
  while (!control_.empty()) {
    Channel& channel = control_.pop_front();
    if (!channel.write_control(batch)) {
      control_.push_front(channel);
      return false;
    }
    remove_if_done(channel);
  }
  return true;
}

// Streams take turns; while others wait, each a quantum.
void Session::build_data(BatchWriter& batch) {
  while (!ready_.empty()) {
    if (scratch_.empty()) scratch_.resize(relay_v2::max_datagram);
    SessionStream& stream = ready_.pop_front();
    const size_t share = ready_.empty() ? relay_v2::max_batch : quantum;
    switch (stream.read_into(batch, share, scratch_)) {
      case SessionStream::Read::later:
        break;
      case SessionStream::Read::more:
        ready_.push_back(stream);
        break;
      case SessionStream::Read::batch_full:
        ready_.push_front(stream);
        return;
    }
  }
}

// One timer for all: it is left alone while it is early enough, and looks again when it fires.
void Session::arm(Clock::TimePoint deadline) {
  if (deadline >= armed_for_) return;
  armed_for_ = deadline;
  timer_->arm(deadline - around_.clock.now(), [this] { expire(); });
}

void Session::expire() {
  armed_for_ = Clock::TimePoint::max();
  const Clock::TimePoint now = around_.clock.now();
  bool completed = false;
  Clock::TimePoint earliest = Clock::TimePoint::max();
  for (Waiting& slot : waiting_) {
    if (slot.command == nullptr) continue;
    if (slot.deadline > now) {
      earliest = std::min(earliest, slot.deadline);
      continue;
    }
    complete(*std::exchange(slot.command, nullptr), status::success, 0);
    completed = true;
  }
  arm(earliest);
  if (!completed) return;
  touch();
  around_.completions.flush();  // may end the session
}

void Session::watch_flows() {
  if (std::exchange(flows_watched_, true)) return;
  flow_timer_->arm(around_.options.flow_quiet / quiet_rounds, [this] { expire_flows(); });
}

void Session::expire_flows() {
  flows_watched_ = false;
  bool any = false;
  for (auto& [number, channel] : numbers_) {
    SessionStream* const stream = channel->as_stream();
    if (stream == nullptr || !stream->is_datagram()) continue;
    stream->quiet_round(quiet_rounds);
    any = true;
  }
  if (any) watch_flows();
  if (make_batches()) around_.completions.flush();  // may end the session
}

// --- for the streams ---

void Session::list_control(Channel& channel) {
  if (!channel.listed()) control_.push_back(channel);
}

void Session::list_ready(SessionStream& stream) {
  Link<SessionStream>& link = stream;
  if (!link.listed()) ready_.push_back(link);
}

void Session::settled(Channel& channel) {
  remove_if_done(channel);
  if (make_batches()) around_.completions.flush();  // may end the session
}

void Session::accept(SessionListener& listener, std::unique_ptr<Service> service) {
  if (no_room() != 0) return;
  const uint32_t number = of_drive_.take();
  if (number == 0) return;
  auto stream =
      std::make_unique<SessionStream>(static_cast<StreamOwner&>(*this), number,
                                      SessionStream::Terms{.window = around_.options.window,
                                                           .largest_window = around_.options.largest_window,
                                                           .credit = 0,
                                                           .datagram = false});
  around_.services.observe(*service, *stream);
  stream->accepted(std::move(service), listener);
  ++counters_.streams_opened;
  Channel& channel = *stream;
  numbers_.emplace(number, std::move(stream));
  settled(channel);
}

}  // namespace nvsock::csd
