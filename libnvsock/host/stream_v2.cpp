#include "libnvsock/host/stream_v2.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string>
#include <utility>

#include "libnvsock/host/target_v2.hpp"
#include "libnvsock/socket/program_errno.hpp"

namespace nvsock {
namespace {

using relay_v2::Frame;
using relay_v2::FrameType;

// From this size on received data stays in the batch it came in, which is kept whole meanwhile: at most
// eight times what is counted against the window.
constexpr size_t by_reference_from = 16 * 1024;

static_assert(Stream::datagram_cost == relay_v2::datagram_cost &&
              Stream::max_datagram == relay_v2::max_datagram);
constexpr size_t largest_cost = relay_v2::max_datagram + relay_v2::datagram_cost;

}  // namespace

StreamV2::StreamV2(const StreamOwnerV2::Shared& shared, uint64_t id, const Endpoint& peer,
                   StreamObserver* observer)
    : Stream(id, peer, observer),
      window_(shared.window),
      receive_credit_(window_),
      shared_(shared),
      timer_(shared.clock.make_timer()) {
  timer_->arm(shared.connect_timeout, [this] { connect_expired(); });
}

StreamV2::StreamV2(const StreamOwnerV2::Shared& shared, uint64_t id, uint32_t number, const Endpoint& peer,
                   const Addresses& addresses, uint32_t credit)
    : Stream(id, peer, nullptr),
      phase_(Phase::open),
      number_(number),
      window_(shared.window),
      send_credit_(credit),
      shared_(shared) {  // the drive's credit is owed to it at once, which is the answer it waits for
  state_ = State::established;
  addresses_ = std::make_unique<Addresses>(addresses);
}

// --- sending ---

void StreamV2::want_to_send() {
  if (phase_ == Phase::asleep && has_queued()) wake_up();
  if (!has_output()) return;
  owner().list_ready(*this);
  owner().send_ready();  // may be the end of it
}

uint32_t StreamV2::unreturned() const {
  return window_ - receive_credit_ - unread();
}

uint32_t StreamV2::unread() const {
  const size_t datagrams = datagrams_ ? datagrams_->received.size() : 0;
  return static_cast<uint32_t>(received_.bytes() + datagrams * datagram_cost);
}

// Credit goes back in large steps: a frame for every half window, none for small exchanges. Also when nobody
// reads any more, because a service that cannot send may not receive either.
bool StreamV2::owes_credit() const {
  if (phase_ != Phase::open || fin_came_ || unreturned() == 0) return false;
  if (unreturned() >= window_ / 2) return true;
  // With a small window half of it may not be enough for the largest datagram.
  return is_datagram() && window_ < 2 * largest_cost && receive_credit_ < largest_cost;
}

bool StreamV2::may_send() const {
  return has_queued() &&
         (datagrams_ ? send_credit_ >= datagrams_->queued.front() + datagram_cost : send_credit_ > 0);
}

bool StreamV2::has_output() const {
  switch (phase_) {
    case Phase::unsent:
      return true;
    case Phase::opening:
      return (released_ && !has_queued()) || reset_with_ != 0;
    case Phase::open:
      if (owes_credit() || reset_with_ != 0) return true;
      if (has_queued()) return may_send();
      return released_ || (send_ended_ && !fin_sent_ && !is_datagram());
    case Phase::asleep:
    case Phase::closed:
      break;
  }
  return false;
}

StreamV2::Emitted StreamV2::emit(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent,
                                 size_t quantum) {
  if (phase_ == Phase::closed || phase_ == Phase::asleep) return Emitted::all;
  if (phase_ == Phase::unsent) return emit_open(batch);
  if (owes_credit()) {
    if (!batch.fits(0)) return Emitted::none;
    // A reader that takes everything is worth more read-ahead: the service sends in longer runs.
    if (received_.empty() && bytes_received_ > 0)
      window_ = std::max(window_, std::min(2 * window_, shared_.largest_window));
    const uint32_t credit = unreturned();
    batch.append(FrameType::window, number_, credit, 0);
    receive_credit_ += credit;
  }
  if (is_datagram()) {
    if (emit_datagrams(batch, sent, quantum)) return Emitted::none;
    if (may_send()) return Emitted::more;
  } else if (emit_data(batch, sent, quantum)) {
    return batch.room() > 0 ? Emitted::more : Emitted::none;
  }
  if (has_queued() || !has_output()) return Emitted::all;
  if (!batch.fits(0)) return Emitted::none;
  if (released_ || reset_with_ != 0) {
    // Behind everything accepted: the drive delivers what it holds and closes.
    batch.append(FrameType::reset, number_, reset_with_, 0);
    close();
    owner().list_changed(*this);
  } else {
    batch.append(FrameType::fin, number_, 0, 0);
    fin_sent_ = true;
    if (fin_came_) close();
  }
  return Emitted::all;
}

StreamV2::Emitted StreamV2::emit_open(relay_v2::BatchWriter& batch) {
  const relay_v2::Target target = target_of(peer_);
  if (!batch.fits(encoded_size(target))) return Emitted::none;
  number_ = owner().take_number(*this);
  if (number_ == 0) {
    break_off(file_errno(Cause::drive_full));
    return Emitted::all;
  }
  encode(target, batch.append(FrameType::open, number_, receive_credit_, encoded_size(target)));
  phase_ = Phase::opening;
  ++shared_.counters.opens;
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
    sent.push_back({.stream = id(), .flow = flow_, .bytes = static_cast<uint32_t>(size)});
  }
  return !queued_.empty() && send_credit_ > 0;
}

// Takes whole datagrams. True: the next one needs another batch.
bool StreamV2::emit_datagrams(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent,
                              size_t quantum) {
  SessionV2::Sent taken{.stream = id(), .flow = flow_, .bytes = 0, .overhead = 0};
  bool full = false;
  while (may_send() && taken.bytes + taken.overhead < quantum) {
    const uint32_t size = datagrams_->queued.front();
    full = !batch.fits(size);
    if (full) break;
    const auto payload = batch.append(FrameType::datagram, number_, 0, size);
    queued_.copy(payload.data(), size);
    queued_.consume(size);
    datagrams_->queued.pop_front();
    send_credit_ -= static_cast<uint32_t>(size + datagram_cost);
    taken.bytes += size;
    taken.overhead += static_cast<uint32_t>(datagram_cost);
  }
  if (taken.overhead > 0) sent.push_back(taken);
  return full;
}

void StreamV2::on_sent(const SessionV2::Sent& sent) {
  if (sent.flow != flow_) return;  // of one that was over, and not counted any more
  unsent_ -= std::min<size_t>(unsent_, sent.bytes + sent.overhead);  // none is left when the stream broke
  bytes_sent_ += sent.bytes;
  owner().list_changed(*this);
}

// --- receiving ---

void StreamV2::on_room_to_receive() {
  if (owes_credit()) want_to_send();
}

bool StreamV2::on_frame(const Frame& frame, const BufferRef& buffer) {
  // In the other phases it has no number.
  assert(phase_ == Phase::opening || phase_ == Phase::open);
  if (phase_ == Phase::opening && frame.type != FrameType::opened && frame.type != FrameType::reset)
    return false;
  owner().list_changed(*this);
  switch (frame.type) {
    case FrameType::opened:
      if (phase_ != Phase::opening) return false;
      on_opened(frame);
      return true;
    case FrameType::data:
      return !is_datagram() && on_data(frame, buffer);
    case FrameType::datagram:
      return is_datagram() && on_datagram(frame, buffer);
    case FrameType::window:
      if (frame.value > relay_v2::max_window - send_credit_) return false;
      send_credit_ += frame.value;
      if (has_output()) owner().list_ready(*this);
      return true;
    case FrameType::fin:
      if (fin_came_ || is_datagram()) return false;
      fin_came_ = receive_ended_ = true;
      if (fin_sent_) close();
      return true;
    case FrameType::reset:
      is_datagram() ? on_flow_reset(frame.value) : on_reset(frame.value);
      return true;
    default:
      return false;
  }
}

void StreamV2::on_opened(const Frame& frame) {
  phase_ = Phase::open;
  send_credit_ = frame.value;
  if (has_output()) owner().list_ready(*this);
  if (released_ || state_ == State::failed) return;  // given up meanwhile
  timer_.reset();
  state_ = State::established;
  if (datagrams_) {
    const size_t sendable = send_credit_ < datagram_cost ? 0 : send_credit_ - datagram_cost;
    datagrams_->largest = std::min(shared_.largest_datagram, sendable);
  }
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
  shared_.counters.bytes_received += size;
  if (released_ || receive_ended_) {  // nobody wants it; the credit goes back, so that the rest keeps moving
    if (has_output()) owner().list_ready(*this);
    return true;
  }
  if (size >= by_reference_from) {
    received_.push({buffer, frame.payload.data(), size});
    return true;
  }
  received_.append_copy(frame.payload.data(), size, [this] { return take_page(); });
  return true;
}

bool StreamV2::on_datagram(const Frame& frame, const BufferRef& buffer) {
  const auto size = static_cast<uint32_t>(frame.payload.size());
  if (size + datagram_cost > receive_credit_) return false;
  receive_credit_ -= static_cast<uint32_t>(size + datagram_cost);
  bytes_received_ += size;
  shared_.counters.bytes_received += size;
  if (released_ || receive_ended_) {
    if (has_output()) owner().list_ready(*this);
    return true;
  }
  ++datagrams_->arrived;
  datagrams_->received.push_back(size);
  if (size >= by_reference_from) {
    received_.push({buffer, frame.payload.data(), size});
  } else {
    received_.append_copy(frame.payload.data(), size, [this] { return take_page(); });
  }
  return true;
}

void StreamV2::on_reset(uint32_t error) {
  const bool opening = phase_ == Phase::opening;
  if (opening) ++shared_.counters.open_failures;
  if (opening && state_ == State::connecting) {
    log(LogLevel::debug, "cannot connect to " + peer_.text() + ": " + std::strerror(static_cast<int>(error)));
  }
  if (error == 0 && !opening) {
    close();
    receive_ended_ = send_ended_ = true;
    drop_queued();
    return;
  }
  break_off(opening ? opening_errno(error) : ending_errno(error, receive_ended_));
}

// --- datagram flows in the drive ---

// Section 7: a port that cannot be reached is told, and the flow goes on; errno 0 is a flow that was quiet.
// What came before the first OPENED is a failed connection.
void StreamV2::on_flow_reset(uint32_t error) {
  if (phase_ == Phase::open && error == ECONNREFUSED) {
    if (!broken_) error_ = ECONNREFUSED;
    return;
  }
  if (state_ != State::established || released_) return on_reset(error);
  if (phase_ == Phase::open && error != 0) return on_reset(error);
  if (phase_ == Phase::opening) {
    // The flow could not be opened again. The next datagram may have more luck, as one of a socket would.
    ++shared_.counters.open_failures;
    error_ = opening_errno(error);
    drop_queued();
  }
  fall_asleep();
  want_to_send();
}

void StreamV2::fall_asleep() {
  free_number();
  phase_ = Phase::asleep;
  send_credit_ = 0;
}

void StreamV2::wake_up() {
  phase_ = Phase::unsent;
  ++flow_;
  unsent_ = queued_.bytes() + datagrams_->queued.size() * datagram_cost;
  receive_credit_ = window_ - unread();
}

// --- ending ---

void StreamV2::free_number() {
  if (number_ != 0) owner().free_number(std::exchange(number_, 0));
}

void StreamV2::close() {
  free_number();
  phase_ = Phase::closed;
}

bool StreamV2::outlives_session(int error) {
  if (phase_ == Phase::unsent && error == ECONNRESET) return true;
  if (error == ECONNRESET && is_datagram() && !released_ && state_ == State::established) {
    drop_queued();
    fall_asleep();
    owner().list_changed(*this);
  } else {
    shared_.counters.lost.add(undelivered());
    break_off(error);
  }
  return false;
}

void StreamV2::break_off(int error) {
  close();
  timer_.reset();
  if (!broken_) fail(error);
  owner().list_changed(*this);
}

void StreamV2::release() {
  observer_ = nullptr;
  released_ = true;
  if (cut_ && reset_with_ == 0) reset_with_ = ECONNABORTED;  // behind what is queued
  received_.clear();
  if (datagrams_) datagrams_->received.clear();
  const bool flow_to_come = phase_ == Phase::unsent && has_queued();
  if ((phase_ == Phase::unsent && !flow_to_come) || phase_ == Phase::asleep || phase_ == Phase::closed)
    return owner().destroy(*this);
  if (has_queued()) {
    timer_ = shared_.clock.make_timer();
    timer_->arm(drain_bound(shared_.drain_timeout), [this] { drain_expired(); });
  }
  want_to_send();
}

void StreamV2::abort(int code) {
  if (broken_) return;
  timer_.reset();
  fail(code);
  if (phase_ == Phase::unsent) close();
  if (phase_ != Phase::closed) reset_with_ = static_cast<uint32_t>(code);
  owner().list_changed(*this);
  owner().settle();  // sends the RESET; may be the end of it
}

void StreamV2::connect_expired() {
  log(LogLevel::debug, "no answer to the connection to " + peer_.text() + " within " +
                           std::to_string(shared_.connect_timeout.count()) + " s");
  fail(file_errno(Cause::timed_out));  // the drive is told with the release
  notify();
}

void StreamV2::drain_expired() {
  log(LogLevel::warning, std::to_string(queued_.bytes()) + " bytes for " + peer_.text() +
                             " were not taken by the service in time and are dropped");
  give_up();
}

void StreamV2::finish() {
  if (released_ && !cut_) timer_.reset();
}

void StreamV2::give_up() {
  shared_.counters.lost.add(undelivered());
  drop_queued();
  if (phase_ == Phase::unsent) return owner().destroy(*this);  // a flow that the drive never heard of
  reset_with_ = ECONNABORTED;  // the service shall not take what it has for all there was
  want_to_send();
}

}  // namespace nvsock
