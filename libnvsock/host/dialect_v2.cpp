#include "libnvsock/host/dialect_v2.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

#include "libnvsock/socket/program_errno.hpp"

namespace nvsock {
namespace {

// DATA of one stream in one batch while others wait.
constexpr size_t quantum = 64 * 1024;

// Who waits for the drive's counters: one question answers all.
constexpr size_t most_asking = 64;

// The drive uses numbers again when a batch of ours has told that we took its last batch with them. That
// batch is made when so many have gathered, though there is nothing else to say.
constexpr unsigned most_freed_silently = 1024;

constexpr size_t kept_pages = 1024;  // 4 MiB

// 0: the drive carries none.
size_t largest_datagram(const relay_v2::Capabilities& drive) {
  if ((drive.features & relay_v2::feature::datagrams) == 0) return 0;
  return std::min<size_t>(relay_v2::max_datagram,
                          drive.max_batch - relay_v2::batch_header_size - relay_v2::frame_header_size);
}

}  // namespace

DialectV2::DialectV2(Clock& clock, CommandPort& port, const relay_v2::Capabilities& capabilities,
                     DialectV2Options options)
    : port_(port),
      options_(std::move(options)),
      max_streams_(capabilities.max_streams),
      features_(capabilities.features),
      pages_(page_size, kept_pages),
      shared_{.owner = *this,
              .clock = clock,
              .pages = pages_,
              .counters = counters_,
              .log = options_.log,
              .connect_timeout = options_.connect_timeout,
              .drain_timeout = options_.drain_timeout,
              .window = options_.window,
              .largest_window = options_.largest_window,
              .largest_datagram = largest_datagram(capabilities)},
      session_(std::make_unique<SessionV2>(clock, port, capabilities, options_.session,
                                           static_cast<SessionV2::Owner&>(*this))) {
  port_.attach(this);
  session_->start();
}

DialectV2::~DialectV2() {
  listeners_.clear();
  streams_.clear();
  // The drive may still write to the buffers of commands it has not completed: they are left to it.
  if (!port_.stop() && !session_->quiet()) static_cast<void>(session_.release());
}

Result<void> DialectV2::room_for_one(const std::string& failed) const {
  if (streams_.size() + listeners_.size() >= max_streams_) {
    return Error{file_errno(Cause::drive_full),
                 failed + ": all " + std::to_string(max_streams_) + " streams of the drive are in use"};
  }
  if (session_->out_of_reach())
    return Error{file_errno(Cause::drive_gone), failed + ": the drive does not answer"};
  return {};
}

Result<StreamHandle> DialectV2::connect(const Endpoint& endpoint, StreamObserver* observer) {
  if (endpoint.type == SocketType::datagram && shared_.largest_datagram == 0) {
    return Error{file_errno(Cause::no_datagrams),
                 "cannot connect to " + endpoint.path() + ": the drive does not carry UDP"};
  }
  if (const Result<void> room = room_for_one("cannot connect to " + endpoint.text()); !room)
    return room.error();
  const uint64_t id = take_id();
  StreamV2& stream =
      *streams_.emplace(id, std::make_unique<StreamV2>(shared_, id, endpoint, observer)).first->second;
  counters_.streams_now = static_cast<unsigned>(streams_.size());
  StreamHandle handle(&stream);
  list_ready(stream);
  send_ready();
  return handle;
}

Result<ListenerHandle> DialectV2::listen(const Endpoint& where, uint32_t backlog,
                                         ListenerObserver* observer) {
  assert(backlog >= 1 && backlog <= max_backlog);
  if ((features_ & relay_v2::feature::listeners) == 0) return Dialect::listen(where, backlog, observer);
  const Result<void> room = room_for_one("cannot listen at " + where.text() + " inside the drive");
  if (!room) return room.error();
  ListenerHandle handle(
      listeners_
          .emplace_back(std::make_unique<ListenerV2>(static_cast<ListenerOwnerV2&>(*this), take_id(),
                                                     shared_.clock, where, backlog, observer))
          .get());
  session_->pump();
  return handle;
}

bool DialectV2::ask_counters(std::function<void(const DriveCounters&)> told) {
  if (!session_->live() || counters_wanted_.size() == most_asking) return false;
  counters_wanted_.push_back(std::move(told));
  ask_stat();
  session_->pump();
  return true;
}

void DialectV2::ask_stat() {
  if (!std::exchange(counters_asked_, true)) counters_due_ = true;
}

bool DialectV2::drained() const {
  const bool listeners_gone =
      std::ranges::none_of(listeners_, [](const auto& listener) { return listener->released(); });
  return streams_.empty() && listeners_gone && session_->all_sent();
}

// --- the end of the program ---

void DialectV2::finish() {
  finishing_ = true;
  for (auto& [id, stream] : streams_) stream->finish();
  on_batch_end();
}

// A stream whose last frame has left is not here any more, but its bytes may be on their way.
Undelivered DialectV2::undelivered() const {
  Undelivered left;
  for (const auto& [id, stream] : streams_) left.add(stream->undelivered());
  std::unordered_map<uint64_t, uint64_t> of_gone;
  session_->for_each_unconfirmed([&](const SessionV2::Sent& sent) {
    if (find(sent.stream) == nullptr) of_gone[sent.stream] += sent.bytes;
  });
  for (const auto& [id, bytes] : of_gone) left.add(bytes);
  return left;
}

void DialectV2::give_up() {
  std::vector<uint64_t> all;
  for (const auto& [id, stream] : streams_) all.push_back(id);
  for (const uint64_t id : all) {
    if (StreamV2* stream = find(id)) stream->give_up();  // which may be the end of it
  }
}

Stream* DialectV2::find_stream(uint64_t id) const {
  return find(id);
}

void DialectV2::for_each_stream(const std::function<void(const Stream&)>& visit) const {
  for (const auto& [id, stream] : streams_) visit(*stream);
}

// --- what the session asks for ---

// Our batches tell the drive what we have taken. The answer to STAT tells what it has, if nothing else does.
void DialectV2::fill(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent) {
  if (numbers_.waiting() > relay_v2::StreamNumbers::most_waiting || freed_for_drive_ > most_freed_silently)
    ask_stat();
  fill_from_line(batch, sent);
  if (!batch.empty()) freed_for_drive_ = 0;
}

// One turn for each stream in line. The one whose frame does not fit stays in front.
void DialectV2::fill_from_line(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent) {
  if (counters_due_ && batch.fits(0)) {
    batch.append(relay_v2::FrameType::stat, 0, 0, 0);
    counters_due_ = false;
  }
  for (size_t left = ready_.size(); left > 0; --left) {
    StreamV2* stream = find(ready_.front());
    if (stream == nullptr) {
      ListenerV2* listener = find_listener(ready_.front());
      if (listener != nullptr && !listener->emit(batch)) return;
      ready_.pop_front();
      continue;
    }
    const auto emitted = stream->emit(batch, sent, ready_.size() == 1 ? relay_v2::max_batch : quantum);
    if (emitted == StreamV2::Emitted::none) return;
    ready_.pop_front();
    stream->listed.ready = emitted == StreamV2::Emitted::more;
    if (stream->listed.ready) ready_.push_back(stream->id());
  }
}

void DialectV2::on_sent(const SessionV2::Sent& sent) {
  counters_.bytes_sent += sent.bytes;
  if (StreamV2* stream = find(sent.stream)) stream->on_sent(sent);
}

bool DialectV2::on_frame(const relay_v2::Frame& frame, const BufferRef& buffer) {
  if (frame.type == relay_v2::FrameType::stat) {
    drive_counters_ = relay_v2::parse_counters(frame.payload);
    counters_came_ = true;
    counters_asked_ = counters_due_;
    return true;
  }
  if (frame.type == relay_v2::FrameType::accepted) return on_accepted(frame);
  if (StreamV2* stream = find_number(frame.stream)) return stream->on_frame(frame, buffer);
  if (ListenerV2* listener = find_listener_number(frame.stream)) return listener->on_frame(frame);
  // Of a stream that is gone; anything else was never ours.
  return frame.stream % 2 == 1 ? numbers_.used(frame.stream) : frame.stream <= last_accepted_;
}

// It is told when the batch ends. When its listener is gone by then, the two crossed, and it is reset.
bool DialectV2::on_accepted(const relay_v2::Frame& frame) {
  const relay_v2::Accepted accepted = relay_v2::parse_accepted(frame.payload);
  if (frame.stream % 2 == 1 || by_number_.contains(frame.stream) || frame.value > relay_v2::max_window ||
      accepted.listener % 2 == 0 || !numbers_.used(accepted.listener)) {
    return false;
  }
  last_accepted_ = std::max(last_accepted_, frame.stream);
  const uint64_t id = std::exchange(next_accepted_id_, next_accepted_id_ + 2);
  StreamV2& stream =
      *streams_
           .emplace(id,
                    std::make_unique<StreamV2>(
                        shared_, id, frame.stream, endpoint_of(accepted.addresses.peer),
                        Stream::Addresses{.local = accepted.addresses.local, .peer = accepted.addresses.peer},
                        frame.value))
           .first->second;
  by_number_.emplace(frame.stream, &stream);
  counters_.streams_now = static_cast<unsigned>(streams_.size());
  list_changed(stream);  // it owes the drive its first credit
  const ListenerV2* const listener = find_listener_number(accepted.listener);
  news_.push_back({.listener = listener == nullptr ? 0 : listener->id(),
                   .attempt = listener == nullptr ? 0 : listener->attempt(),
                   .stream = id});
  return true;
}

void DialectV2::tell_listeners() {
  while (!news_.empty()) {
    const News news = news_.front();
    news_.pop_front();
    ListenerV2* listener = find_listener(news.listener);
    if (listener != nullptr && listener->attempt() != news.attempt) listener = nullptr;
    if (news.stream != 0) {
      StreamHandle stream(find(news.stream));
      if (listener != nullptr) listener->tell_accepted(stream);
      if (stream) stream->abort(ECONNREFUSED);
    } else if (listener != nullptr && news.error != 0) {
      listener->tell_failed(news.error);
    } else if (listener != nullptr) {
      listener->tell_listening(news.address);
    }
  }
}

void DialectV2::tell_counters() {
  if (!std::exchange(counters_came_, false)) return;
  for (const auto& told : std::exchange(counters_wanted_, {})) told(drive_counters_);
}

// A stream whose OPEN was never sent was not in the session: it leaves with the next one.
void DialectV2::on_session_lost(int error) {
  for (auto& [id, stream] : streams_) {
    if (!stream->outlives_session(error)) stream->listed.ready = false;
  }
  std::erase_if(ready_, [this](uint64_t id) {
    const StreamV2* stream = find(id);
    return stream == nullptr || !stream->listed.ready;
  });
  drive_counters_.reset();
  counters_due_ = counters_asked_ = false;
  counters_came_ = true;
  numbers_ = relay_v2::StreamNumbers(1);
  last_accepted_ = 0;
  freed_for_drive_ = 0;
  by_number_.clear();
  std::erase_if(listeners_, [](const auto& listener) { return listener->released(); });
  for (const auto& listener : listeners_) listener->on_session_lost(error);
  on_batch_end();
}

void DialectV2::on_session_live() {
  log(LogLevel::debug, "the session is live");
}

void DialectV2::on_command(bool submitted) {
  if (submitted) {
    ++counters_.commands;
    counters_.max_in_flight = std::max(counters_.max_in_flight, ++counters_.in_flight_now);
  } else {
    --counters_.in_flight_now;
  }
}

void DialectV2::on_link_message(const std::string& text) {
  log(LogLevel::warning, text);
}

// --- streams ---

StreamV2* DialectV2::find(uint64_t id) const {
  const auto found = streams_.find(id);
  return found == streams_.end() ? nullptr : found->second.get();
}

StreamV2* DialectV2::find_number(uint32_t number) const {
  const auto found = by_number_.find(number);
  return found == by_number_.end() ? nullptr : found->second;
}

ListenerV2* DialectV2::find_listener(uint64_t id) const {
  const auto found =
      std::ranges::find_if(listeners_, [&](const auto& listener) { return listener->id() == id; });
  return found == listeners_.end() ? nullptr : found->get();
}

ListenerV2* DialectV2::find_listener_number(uint32_t number) const {
  const auto found =
      std::ranges::find_if(listeners_, [&](const auto& listener) { return listener->number() == number; });
  return found == listeners_.end() ? nullptr : found->get();
}

void DialectV2::list_ready(StreamV2& stream) {
  if (!std::exchange(stream.listed.ready, true)) ready_.push_back(stream.id());
}

void DialectV2::list_ready(ListenerV2& listener) {
  ready_.push_back(listener.id());
}

// While streams are told of a batch, what comes of it leaves together, when all have been told.
void DialectV2::send_ready() {
  if (telling_.empty()) session_->pump();
}

void DialectV2::list_changed(StreamV2& stream) {
  if (!std::exchange(stream.listed.changed, true)) changed_.push_back(stream.id());
}

void DialectV2::list_listening(ListenerV2& listener, const sockaddr_storage& address) {
  news_.push_back({.listener = listener.id(), .attempt = listener.attempt(), .address = address});
}

void DialectV2::list_failed(ListenerV2& listener, int error) {
  news_.push_back({.listener = listener.id(), .attempt = listener.attempt(), .error = error});
}

uint32_t DialectV2::take_number(StreamV2& stream) {
  const uint32_t number = numbers_.take();
  if (number != 0) by_number_.emplace(number, &stream);
  return number;
}

// The last frame of it was in the batch that was made last, or in an earlier one.
void DialectV2::free_number(uint32_t number) {
  by_number_.erase(number);
  if (number % 2 == 1) {
    numbers_.close(number, session_->batches_sent());
  } else {
    ++freed_for_drive_;
  }
}

void DialectV2::destroy(StreamV2& stream) {
  streams_.erase(stream.id());
  counters_.streams_now = static_cast<unsigned>(streams_.size());
}

void DialectV2::destroy(ListenerV2& listener) {
  std::erase_if(listeners_, [&](const auto& each) { return each.get() == &listener; });
}

void DialectV2::on_batch_end() {
  if (!telling_.empty()) return;
  tell_listeners();
  tell_counters();
  while (!changed_.empty()) {
    std::swap(changed_, telling_);
    for (const uint64_t id : telling_) {
      StreamV2* stream = find(id);
      if (stream == nullptr) continue;
      stream->listed.changed = false;
      if (stream->has_output()) list_ready(*stream);
      stream->done() ? destroy(*stream) : stream->tell();  // which may release it
    }
    telling_.clear();
  }
  finishing_&& drained() ? session_->detach() : session_->pump();
}

}  // namespace nvsock
