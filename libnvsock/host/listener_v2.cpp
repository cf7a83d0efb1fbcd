#include "libnvsock/host/listener_v2.hpp"

#include <utility>

namespace nvsock {

using relay_v2::FrameType;

ListenerV2::ListenerV2(DialectV2& dialect, const Endpoint& where, uint32_t backlog,
                       ListenerObserver* observer)
    : Listener(where),
      dialect_(dialect),
      backlog_(backlog),
      observer_(observer),
      timer_(dialect.clock_.make_timer()) {
  ask();
}

void ListenerV2::ask() {
  phase_ = Phase::unsent;
  number_ = std::exchange(dialect_.next_number_, dialect_.next_number_ + 2);
  dialect_.ready_.push_back(number_);
}

bool ListenerV2::emit(relay_v2::BatchWriter& batch) {
  if (phase_ == Phase::released) {
    if (!batch.fits(0)) return false;
    batch.append(FrameType::reset, number_, 0, 0);
    dialect_.destroy(*this);
    return true;
  }
  if (phase_ != Phase::unsent) return true;
  const relay_v2::Target target{.type = relay_v2::SocketType::stream,
                                .family = family_of(where_),
                                .port = where_.port,
                                .node = where_.host};
  if (!batch.fits(encoded_size(target))) return false;
  encode(target, batch.append(FrameType::listen, number_, backlog_, encoded_size(target)));
  phase_ = Phase::asked;
  return true;
}

bool ListenerV2::on_frame(const relay_v2::Frame& frame) {
  if (phase_ == Phase::released || phase_ == Phase::refused) return true;
  if (phase_ == Phase::unsent) return false;
  if (frame.type == FrameType::listening && phase_ == Phase::asked) {
    phase_ = Phase::listening;
    dialect_.news_.push_back({.listener = number_, .address = relay_v2::parse_address(frame.payload)});
    return true;
  }
  if (frame.type != FrameType::reset) return false;
  phase_ = Phase::refused;
  dialect_.news_.push_back(
      {.listener = number_, .error = frame.value == 0 ? ECONNRESET : static_cast<int>(frame.value)});
  timer_->arm(listen_again_after, [this] {
    ask();
    dialect_.session_->pump();
  });
  return true;
}

void ListenerV2::on_session_lost(int error) {
  if (phase_ == Phase::refused) return;  // asks again when its time comes
  const bool known = phase_ != Phase::unsent || error != ECONNRESET;
  ask();
  if (known) dialect_.news_.push_back({.listener = number_, .error = error});
}

void ListenerV2::release() {
  timer_->disarm();
  if (phase_ == Phase::unsent || phase_ == Phase::refused) return dialect_.destroy(*this);
  phase_ = Phase::released;
  dialect_.ready_.push_back(number_);
  dialect_.session_->pump();  // may be the end of it
}

}  // namespace nvsock
