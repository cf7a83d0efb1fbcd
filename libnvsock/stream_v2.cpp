#include "libnvsock/stream_v2.hpp"

#include <algorithm>
#include <cstring>
#include <string>

namespace nvsock {
namespace {

using relay_v2::Frame;
using relay_v2::FrameType;

// From this size on received data stays in the batch it came in, which is kept whole meanwhile: at most
// eight times what is counted against the window.
constexpr size_t by_reference_from = 16 * 1024;

}  // namespace

StreamV2::StreamV2(DialectV2& dialect, uint32_t number, const Endpoint& peer, StreamObserver* observer)
    : Stream(number, peer, observer),
      dialect_(dialect),
      number_(number),
      timer_(dialect.clock_.make_timer()),
      window_(dialect.options_.window),
      receive_credit_(window_) {
  timer_->arm(dialect.options_.connect_timeout, [this] { connect_expired(); });
}

StreamV2::StreamV2(DialectV2& dialect, uint64_t id, uint32_t number, const Endpoint& peer,
                   const Addresses& addresses, uint32_t credit)
    : Stream(id, peer, nullptr),
      dialect_(dialect),
      number_(number),
      phase_(Phase::open),
      window_(dialect.options_.window),
      send_credit_(credit) {  // the drive's credit is owed to it at once, which is the answer it waits for
  state_ = State::established;
  addresses_ = std::make_unique<Addresses>(addresses);
}

// --- sending ---

void StreamV2::want_to_send() {
  if (!has_output()) return;
  dialect_.make_ready(*this);
  // While streams are told of a batch, what comes of it leaves together, when all have been told.
  if (dialect_.telling_.empty()) dialect_.session_->pump();  // may end the stream: nothing may follow
}

uint32_t StreamV2::unreturned() const {
  return window_ - receive_credit_ - static_cast<uint32_t>(received_.bytes());
}

// Credit goes back in large steps: a frame for every half window, none for small exchanges. Also when nobody
// reads any more, because a service that cannot send may not receive either.
bool StreamV2::owes_credit() const {
  return phase_ == Phase::open && !fin_came_ && unreturned() > 0 && unreturned() >= window_ / 2;
}

bool StreamV2::has_output() const {
  switch (phase_) {
    case Phase::unsent:
      return true;
    case Phase::opening:
      return released_ || reset_with_ != 0;
    case Phase::open:
      if (owes_credit() || reset_with_ != 0) return true;
      return queued_.empty() ? released_ || (send_ended_ && !fin_sent_) : send_credit_ > 0;
    case Phase::closed:
      break;
  }
  return false;
}

StreamV2::Emitted StreamV2::emit(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent,
                                 size_t quantum) {
  if (phase_ == Phase::closed) return Emitted::all;
  if (phase_ == Phase::unsent) return emit_open(batch);
  if (owes_credit()) {
    if (!batch.fits(0)) return Emitted::none;
    // A reader that takes everything is worth more read-ahead: the service sends in longer runs.
    if (received_.empty() && bytes_received_ > 0)
      window_ = std::max(window_, std::min(2 * window_, dialect_.options_.largest_window));
    const uint32_t credit = unreturned();
    batch.append(FrameType::window, number_, credit, 0);
    receive_credit_ += credit;
  }
  if (emit_data(batch, sent, quantum)) return batch.room() > 0 ? Emitted::more : Emitted::none;
  if (!queued_.empty() || !has_output()) return Emitted::all;
  if (!batch.fits(0)) return Emitted::none;
  if (released_ || reset_with_ != 0) {
    // Behind everything accepted: the drive delivers what it holds and closes.
    batch.append(FrameType::reset, number_, reset_with_, 0);
    phase_ = Phase::closed;
    dialect_.changed(*this);
  } else {
    batch.append(FrameType::fin, number_, 0, 0);
    fin_sent_ = true;
    if (fin_came_) phase_ = Phase::closed;
  }
  return Emitted::all;
}

StreamV2::Emitted StreamV2::emit_open(relay_v2::BatchWriter& batch) {
  const relay_v2::Target target{.type = relay_v2::SocketType::stream,
                                .family = family_of(peer_),
                                .port = peer_.port,
                                .node = peer_.host};
  if (!batch.fits(encoded_size(target))) return Emitted::none;
  encode(target, batch.append(FrameType::open, number_, window_, encoded_size(target)));
  phase_ = Phase::opening;
  ++dialect_.counters_.opens;
  return Emitted::all;
}

// True: bytes are left that have credit.
bool StreamV2::emit_data(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent, size_t quantum) {
  const size_t size = std::min({queued_.bytes(), size_t{send_credit_}, batch.room(), quantum});
  if (size > 0) {
    const auto payload = batch.append(FrameType::data, number_, 0, size);
    for (size_t done = 0; done < size;) {
      const Slice& front = queued_.front();
      const auto part = static_cast<uint32_t>(std::min<size_t>(front.size, size - done));
      std::memcpy(payload.data() + done, front.data, part);
      queued_.consume_front(part);
      done += part;
    }
    send_credit_ -= static_cast<uint32_t>(size);
    sent.push_back({number_, static_cast<uint32_t>(size)});
  }
  return !queued_.empty() && send_credit_ > 0;
}

// --- receiving ---

void StreamV2::on_room_to_receive() {
  if (owes_credit()) want_to_send();
}

bool StreamV2::on_frame(const Frame& frame, const BufferRef& buffer) {
  if (phase_ == Phase::closed) return true;
  if (phase_ == Phase::unsent) return false;
  if (phase_ == Phase::opening && frame.type != FrameType::opened && frame.type != FrameType::reset)
    return false;
  dialect_.changed(*this);
  switch (frame.type) {
    case FrameType::opened:
      if (phase_ != Phase::opening) return false;
      on_opened(frame);
      return true;
    case FrameType::data:
      return on_data(frame, buffer);
    case FrameType::window:
      if (frame.value > relay_v2::max_window - send_credit_) return false;
      send_credit_ += frame.value;
      if (has_output()) dialect_.make_ready(*this);
      return true;
    case FrameType::fin:
      if (fin_came_) return false;
      fin_came_ = receive_ended_ = true;
      if (fin_sent_) phase_ = Phase::closed;
      return true;
    case FrameType::reset:
      on_reset(frame.value);
      return true;
    default:
      return false;
  }
}

void StreamV2::on_opened(const Frame& frame) {
  phase_ = Phase::open;
  send_credit_ = frame.value;
  if (released_ || state_ != State::connecting) {  // given up meanwhile
    dialect_.make_ready(*this);
    return;
  }
  timer_.reset();
  state_ = State::established;
  const relay_v2::Opened opened = relay_v2::parse_opened(frame.payload);
  if (opened.local.ss_family != AF_UNSPEC && opened.peer.ss_family != AF_UNSPEC) {
    addresses_ = std::make_unique<Addresses>(Addresses{.local = opened.local, .peer = opened.peer});
  }
}

bool StreamV2::on_data(const Frame& frame, const BufferRef& buffer) {
  const auto size = static_cast<uint32_t>(frame.payload.size());
  if (fin_came_ || size > receive_credit_) return false;
  receive_credit_ -= size;
  bytes_received_ += size;
  dialect_.counters_.bytes_received += size;
  if (released_ || receive_ended_) {  // nobody wants it; the credit goes back, so that the rest keeps moving
    if (has_output()) dialect_.make_ready(*this);
    return true;
  }
  if (size >= by_reference_from) {
    received_.push({buffer, frame.payload.data(), size});
    return true;
  }
  received_.append_copy(frame.payload.data(), size, [this] { return take_page(); });
  return true;
}

void StreamV2::on_reset(uint32_t error) {
  const bool opening = phase_ == Phase::opening;
  if (opening) ++dialect_.counters_.open_failures;
  if (opening && state_ == State::connecting) {
    dialect_.log(LogLevel::info,
                 "cannot connect to " + peer_.text() + ": " + std::strerror(static_cast<int>(error)));
  }
  if (error == 0 && !opening) {
    phase_ = Phase::closed;
    receive_ended_ = send_ended_ = true;
    queued_.clear();
    unsent_ = 0;
    return;
  }
  // As Linux has it: a reset behind the peer's end is EPIPE (tcp_reset).
  const bool after_end = error == ECONNRESET && receive_ended_;
  break_off(error == 0 ? ECONNREFUSED : after_end ? EPIPE : static_cast<int>(error));
}

// --- ending ---

void StreamV2::break_off(int error) {
  phase_ = Phase::closed;
  timer_.reset();
  if (!broken_) fail(error);
  dialect_.changed(*this);
}

void StreamV2::release() {
  observer_ = nullptr;
  released_ = true;
  received_.clear();
  if (phase_ == Phase::unsent || phase_ == Phase::closed) return dialect_.destroy(*this);
  if (!queued_.empty()) {
    timer_ = dialect_.clock_.make_timer();
    timer_->arm(dialect_.options_.drain_timeout, [this] { drain_expired(); });
  }
  want_to_send();
}

void StreamV2::abort(int code) {
  if (broken_) return;
  timer_.reset();
  fail(code);
  if (phase_ == Phase::unsent) phase_ = Phase::closed;
  if (phase_ != Phase::closed) reset_with_ = static_cast<uint32_t>(code);
  DialectV2& dialect = dialect_;
  dialect.changed(*this);
  dialect.on_batch_end();  // sends the RESET; may be the end of it
}

void StreamV2::connect_expired() {
  dialect_.log(LogLevel::info, "no answer to the connection to " + peer_.text() + " within " +
                                   std::to_string(dialect_.options_.connect_timeout.count()) + " s");
  fail(ETIMEDOUT);  // the drive is told with the release
  notify();
}

void StreamV2::drain_expired() {
  dialect_.log(LogLevel::warning, std::to_string(queued_.bytes()) + " bytes for " + peer_.text() +
                                      " were not taken by the service in time and are dropped");
  queued_.clear();
  reset_with_ = ECONNABORTED;  // the service shall not take what it has for all there was
  want_to_send();
}

}  // namespace nvsock
