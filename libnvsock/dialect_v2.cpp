#include "libnvsock/dialect_v2.hpp"

#include <algorithm>
#include <utility>

#include "libnvsock/stream_v2.hpp"

namespace nvsock {
namespace {

// DATA of one stream in one batch while others wait.
constexpr size_t quantum = 64 * 1024;

constexpr size_t kept_pages = 1024;  // 4 MiB

size_t largest_datagram(const relay_v2::Capabilities& drive) {
  if ((drive.features & relay_v2::feature::datagrams) == 0) return 0;
  return std::min<size_t>(relay_v2::max_datagram,
                          drive.max_batch - relay_v2::batch_header_size - relay_v2::frame_header_size);
}

}  // namespace

DialectV2::DialectV2(Clock& clock, CommandPort& port, const relay_v2::Capabilities& capabilities,
                     DialectV2Options options)
    : clock_(clock),
      port_(port),
      options_(std::move(options)),
      max_streams_(capabilities.max_streams),
      largest_datagram_(nvsock::largest_datagram(capabilities)),
      pages_(page_size, kept_pages),
      session_(std::make_unique<SessionV2>(clock, port, capabilities, options_.session,
                                           static_cast<SessionV2::Owner&>(*this))) {
  port_.attach(this);
  session_->start();
}

DialectV2::~DialectV2() {
  streams_.clear();
  // The drive may still write to the buffers of commands it has not completed: they are left to it.
  if (!port_.stop() && !session_->quiet()) static_cast<void>(session_.release());
}

Result<StreamHandle> DialectV2::connect(const Endpoint& endpoint, StreamObserver* observer) {
  if (endpoint.type == SocketType::datagram && largest_datagram_ == 0) {
    return Error{EPROTONOSUPPORT, "cannot connect to " + endpoint.path() + ": the drive does not carry UDP"};
  }
  if (streams_.size() >= max_streams_) {
    return Error{ENFILE, "cannot connect to " + endpoint.text() + ": all " + std::to_string(max_streams_) +
                             " streams of the drive are in use"};
  }
  if (session_->out_of_reach()) {
    return Error{ENODEV, "cannot connect to " + endpoint.text() + ": the drive does not answer"};
  }
  const uint32_t number = std::exchange(next_number_, next_number_ + 2);
  StreamV2& stream =
      *streams_.emplace(number, std::make_unique<StreamV2>(*this, number, endpoint, observer)).first->second;
  counters_.streams_now = static_cast<unsigned>(streams_.size());
  StreamHandle handle(&stream);
  stream.want_to_send();
  return handle;
}

void DialectV2::for_each_stream(const std::function<void(const Stream&)>& visit) const {
  for (const auto& [number, stream] : streams_) visit(*stream);
}

// --- what the session asks for ---

// One turn for each stream in line. The one whose frame does not fit stays in front, so that OPENs leave in
// the order of their numbers (section 7).
void DialectV2::fill(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent) {
  for (size_t left = ready_.size(); left > 0; --left) {
    StreamV2* stream = find(ready_.front());
    if (stream == nullptr) {
      ready_.pop_front();
      continue;
    }
    const auto emitted = stream->emit(batch, sent, ready_.size() == 1 ? relay_v2::max_batch : quantum);
    if (emitted == StreamV2::Emitted::none) return;
    ready_.pop_front();
    stream->ready_ = emitted == StreamV2::Emitted::more;
    if (stream->ready_) ready_.push_back(stream->number_);
  }
}

void DialectV2::on_sent(const SessionV2::Sent& sent) {
  counters_.bytes_sent += sent.bytes;
  StreamV2* stream = find(sent.stream);
  if (stream == nullptr) return;
  stream->unsent_ -=
      std::min<size_t>(stream->unsent_, sent.bytes + sent.overhead);  // none is left when the stream broke
  stream->bytes_sent_ += sent.bytes;
  changed(*stream);
}

bool DialectV2::on_frame(const relay_v2::Frame& frame, const BufferRef& buffer) {
  if (frame.type == relay_v2::FrameType::stat) return true;  // not asked for; harmless
  if (StreamV2* stream = find(frame.stream)) return stream->on_frame(frame, buffer);
  // Of a stream that is gone; anything else was never ours.
  return frame.stream % 2 == 1 && frame.stream < next_number_;
}

// A stream whose OPEN was never sent was not in the session: it leaves with the next one.
void DialectV2::on_session_lost(int error) {
  const auto stays = [error](const StreamV2* stream) {
    return stream != nullptr && stream->phase_ == StreamV2::Phase::unsent && error == ECONNRESET;
  };
  std::erase_if(ready_, [&](uint32_t number) { return !stays(find(number)); });
  for (auto& [number, stream] : streams_) {
    if (stays(stream.get())) continue;
    stream->ready_ = false;
    if (error == ECONNRESET && stream->is_datagram() && !stream->released_ &&
        stream->state() == Stream::State::established) {
      stream->drop_queued();
      stream->fall_asleep();
      changed(*stream);
    } else {
      stream->break_off(error);
    }
  }
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

StreamV2* DialectV2::find(uint64_t number) const {
  const auto found = streams_.find(number);
  return found == streams_.end() ? nullptr : found->second.get();
}

void DialectV2::make_ready(StreamV2& stream) {
  if (std::exchange(stream.ready_, true)) return;
  ready_.push_back(stream.number_);
}

void DialectV2::changed(StreamV2& stream) {
  if (std::exchange(stream.changed_, true)) return;
  changed_.push_back(stream.number_);
}

// For another flow: a number is never used again.
void DialectV2::renumber(StreamV2& stream) {
  auto node = streams_.extract(stream.number_);
  stream.number_ = std::exchange(next_number_, next_number_ + 2);
  node.key() = stream.number_;
  streams_.insert(std::move(node));
  stream.ready_ = false;  // the lists hold the number it had
  if (std::exchange(stream.changed_, false)) changed(stream);
}

void DialectV2::destroy(StreamV2& stream) {
  streams_.erase(stream.number_);
  counters_.streams_now = static_cast<unsigned>(streams_.size());
}

void DialectV2::on_batch_end() {
  if (!telling_.empty()) return;
  while (!changed_.empty()) {
    std::swap(changed_, telling_);
    for (const uint32_t number : telling_) {
      StreamV2* stream = find(number);
      if (stream == nullptr) continue;
      stream->changed_ = false;
      if (stream->has_output()) make_ready(*stream);
      if (!stream->released_) {
        stream->notify();  // may release it
      } else if (stream->phase_ == StreamV2::Phase::closed) {
        destroy(*stream);
      }
    }
    telling_.clear();
  }
  session_->pump();
}

}  // namespace nvsock
