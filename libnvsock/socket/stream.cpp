#include "libnvsock/socket/stream.hpp"

#include <poll.h>

#include <algorithm>
#include <cerrno>

namespace nvsock {
namespace {

// From this size on a slice is sent from where it lies; below, copying costs less than pinning the
// buffer it came in.
constexpr uint32_t by_reference_from = 16 * 1024;

bool page_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % page_size == 0;
}

}  // namespace

void Stream::consume(size_t size) {
  if (datagrams_) {
    size = datagrams_->received.front();
    datagrams_->received.pop_front();
  }
  received_.consume(size);
  on_room_to_receive();
}

size_t Stream::write(const Slice& slice) {
  const auto size = static_cast<uint32_t>(std::min<size_t>(slice.size, room()));
  if (size == 0) return 0;
  if (slice.buffer && size >= by_reference_from && page_aligned(slice.data)) {
    // Whole pages, so that the next part of the same slice starts at a page again.
    const uint32_t whole = size == slice.size ? size : size - size % static_cast<uint32_t>(page_size);
    queued_.push({slice.buffer, slice.data, whole});
    unsent_ += whole;
    send_queued();
    return whole;
  }
  queued_.append_copy(slice.data, size, [this] { return take_page(); });
  unsent_ += size;
  send_queued();
  return size;
}

int Stream::write_datagram(std::span<const uint8_t> datagram) {
  if (datagram.size() > datagrams_->largest) return EMSGSIZE;
  if (send_ended_) return EPIPE;
  if (datagram.size() + datagram_cost > room()) return EAGAIN;
  queued_.append_copy(datagram.data(), datagram.size(), [this] { return take_page(); });
  datagrams_->queued.push_back(static_cast<uint32_t>(datagram.size()));
  unsent_ += datagram.size() + datagram_cost;
  send_queued();
  return 0;
}

void Stream::shutdown_write() {
  if (send_ended_) return;
  send_ended_ = true;
  on_shutdown();
}

void Stream::shutdown_read() {
  if (receive_ended_) return;
  receive_ended_ = true;
  on_shutdown();
}

short Stream::poll_events() const {
  if (state_ == State::connecting) return 0;
  int events = 0;
  if (can_read() || receive_ended_) events |= POLLIN | POLLRDNORM;
  if (receive_ended_) events |= POLLRDHUP;
  if (send_ended_ || broken_) {
    events |= POLLOUT | POLLWRNORM;  // a write fails at once
  } else if (room() >= send_limit / 3) {
    events |= POLLOUT | POLLWRNORM;  // for datagrams: of any size
  }
  if (error_ != 0) events |= POLLERR;
  if (broken_ || (receive_ended_ && send_ended_)) events |= POLLHUP;
  return static_cast<short>(events);
}

std::chrono::seconds Stream::drain_bound(std::chrono::seconds drain_timeout) const {
  constexpr std::chrono::seconds for_cut{4};
  return cut_ ? std::min(drain_timeout, for_cut) : drain_timeout;
}

void Stream::drop_queued() {
  queued_.clear();
  if (datagrams_) datagrams_->queued.clear();
  unsent_ = 0;
}

void Stream::fail(int code) {
  if (state_ == State::connecting) state_ = State::failed;
  error_ = code;
  broken_ = true;
  receive_ended_ = true;
  send_ended_ = true;
  drop_queued();
}

}  // namespace nvsock
