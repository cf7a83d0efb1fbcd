#include "libnvsock/host/listener_v2.hpp"

#include <cstring>
#include <utility>

#include "libnvsock/host/target_v2.hpp"
#include "libnvsock/socket/program_errno.hpp"

namespace nvsock {

using relay_v2::FrameType;

ListenerV2::ListenerV2(ListenerOwnerV2& owner, uint64_t id, Clock& clock, const Endpoint& where,
                       uint32_t backlog, ListenerObserver* observer)
    : Listener(where),
      owner_(owner),
      id_(id),
      backlog_(backlog),
      observer_(observer),
      timer_(clock.make_timer()) {
  ask();
}

void ListenerV2::ask() {
  phase_ = Phase::unsent;
  ++attempt_;
  number_ = 0;
  owner_.list_ready(*this);
}

bool ListenerV2::emit(relay_v2::BatchWriter& batch) {
  if (phase_ == Phase::released) {
    if (!batch.fits(0)) return false;
    batch.append(FrameType::reset, number_, 0, 0);
    owner_.free_number(number_);
    owner_.destroy(*this);
    return true;
  }
  if (phase_ != Phase::unsent) return true;
  const relay_v2::Target target = target_of(where_);
  if (!batch.fits(encoded_size(target))) return false;
  number_ = owner_.take_number();
  if (number_ == 0) {
    refuse(file_errno(Cause::drive_full));
    return true;
  }
  encode(target, batch.append(FrameType::listen, number_, backlog_, encoded_size(target)));
  phase_ = Phase::asked;
  return true;
}

bool ListenerV2::on_frame(const relay_v2::Frame& frame) {
  if (phase_ == Phase::released) return true;
  if (frame.type == FrameType::listening && phase_ == Phase::asked) {
    phase_ = Phase::listening;
    owner_.list_listening(*this, relay_v2::parse_address(frame.payload));
    return true;
  }
  if (frame.type != FrameType::reset) return false;
  owner_.free_number(std::exchange(number_, 0));
  refuse(ending_errno(frame.value, false));
  return true;
}

void ListenerV2::refuse(int error) {
  phase_ = Phase::refused;
  owner_.list_failed(*this, error);
  timer_->arm(listen_again_after, [this] {
    ask();
    owner_.send_ready();
  });
}

void ListenerV2::on_session_lost(int error) {
  if (phase_ == Phase::refused) return;  // asks again when its time comes
  const bool known = phase_ != Phase::unsent || error != ECONNRESET;
  ask();
  if (known) owner_.list_failed(*this, error);
}

void ListenerV2::tell_listening(const sockaddr_storage& address) {
  if (!released()) observer_->on_listening(*this, address);
}

void ListenerV2::tell_failed(int error) {
  if (released()) return;
  observer_->on_listen_failed(
      *this, {error, "cannot listen at " + where_.text() + " inside the drive: " + std::strerror(error)});
}

void ListenerV2::tell_accepted(StreamHandle& stream) {
  if (!released()) observer_->on_accepted(*this, stream);
}

void ListenerV2::release() {
  timer_->disarm();
  if (phase_ == Phase::unsent || phase_ == Phase::refused) return owner_.destroy(*this);
  phase_ = Phase::released;
  owner_.list_ready(*this);
  owner_.send_ready();  // may be the end of it
}

}  // namespace nvsock
