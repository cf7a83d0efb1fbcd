#include "csd/v1/relay.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>

#include "csd/v1/relay_firmware.hpp"
#include "libnvsock/base/reset_on_close.hpp"
#include "libnvsock/base/socket_error.hpp"
#include "libnvsock/relay/v1.hpp"

namespace nvsock::csd {
namespace {

// Buffers of one recvmsg or sendmsg: 1 MiB, and under IOV_MAX.
constexpr int batch = 256;

}  // namespace

Relay::Relay(RelayFirmware& firmware, uint32_t descriptor, int fd)
    : firmware_(firmware), descriptor_(descriptor), socket_(firmware.loop(), fd), writable_(firmware.loop()) {
  reset_on_close(fd, true);
}

void Relay::connect(const sockaddr_in& address, Command& open) {
  opening_ = &open;
  const int on = 1;
  setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const int fd = socket_.native_handle();
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return connected(0);
  if (errno != EINPROGRESS) return connected(errno);
  if (!writable_.start(fd, {shared_from_this(), this})) connected(errno);
}

void Relay::on_writable() {
  if (opening_ != nullptr) {
    connected(socket_error(socket_.native_handle()));
  } else {
    send_writes();
    firmware_.writes_moved(*this);
  }
  firmware_.flush();
}

void Relay::connected(int error) {
  Command& open = *std::exchange(opening_, nullptr);
  if (error == 0) relay_v1::store_u32(open.data, descriptor_);
  firmware_.opened(*this, open, error);
}

void Relay::queue_read(Command& read) {
  if (reads_queued_ == relay_v1::max_queued_reads) return firmware_.complete(read, status::internal_error);
  ++reads_queued_;
  reads_.push(read);
}

void Relay::serve_reads() {
  if (ended_) return end_reads(0);
  while (!reads_.empty() && !drained_ && !closed_ && !lost_) {
    iovec parts[batch];
    int count = 0;
    for (Command* read = reads_.front(); read != nullptr && count < batch; read = read->next) {
      parts[count++] = {static_cast<uint8_t*>(read->data) + relay_v1::read_header, relay_v1::max_read};
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = static_cast<size_t>(count);
    const ssize_t received = recvmsg(socket_.native_handle(), &message, MSG_DONTWAIT);
    if (received < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        drained_ = true;
        return;
      }
      if (firmware_.shipped()) {  // its relay thread is gone, and the waiting reads with it
        lost_ = true;
        return;
      }
      return end_reads(errno);
    }
    if (received == 0) {
      ended_ = true;
      return end_reads(0);
    }
    drained_ = static_cast<size_t>(received) < static_cast<size_t>(count) * relay_v1::max_read;
    for (auto left = static_cast<size_t>(received); left > 0;) {
      const auto part = static_cast<uint32_t>(std::min<size_t>(left, relay_v1::max_read));
      Command& read = reads_.pop();
      --reads_queued_;
      relay_v1::store_u32(read.data, part);
      firmware_.complete(read, status::success);
      left -= part;
    }
  }
}

void Relay::end_reads(int error) {
  while (!reads_.empty()) {
    Command& read = reads_.pop();
    --reads_queued_;
    relay_v1::store_u32(read.data, 0);
    firmware_.complete(read, error == 0 ? status::success : status::vendor_errno(error));
  }
}

void Relay::await_readable() {
  if (!drained_ || awaiting_readable_ || reads_.empty() || closed_) return;
  awaiting_readable_ = true;
  socket_.async_wait(asio::posix::stream_descriptor::wait_read,
                     [self = shared_from_this()](const asio::error_code&) {
                       self->awaiting_readable_ = false;
                       self->drained_ = false;
                       if (self->closed_) return;
                       self->serve_reads();
                       self->firmware_.flush();
                       self->await_readable();  // after the answer: it is not in the way of a round trip
                     });
}

void Relay::queue_write(Command& write) {
  writes_.push(write);
}

void Relay::send_writes() {
  while (!writes_.empty() && !writable_.waiting() && !closed_) {
    iovec parts[batch];
    int count = 0;
    size_t total = 0;
    uint32_t skip = first_write_sent_;
    for (Command* write = writes_.front(); write != nullptr && count < batch; write = write->next) {
      parts[count++] = {static_cast<uint8_t*>(write->data) + skip, write->cdw12 - skip};
      total += write->cdw12 - skip;
      skip = 0;
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = static_cast<size_t>(count);
    const ssize_t sent = sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN) return await_writable();
      if (errno == EINTR) continue;
      lost_ = firmware_.shipped();  // the error is taken: no recvmsg will tell the reads
      return fail_writes(errno);
    }
    for (auto left = static_cast<size_t>(sent); left > 0;) {
      Command& write = *writes_.front();
      const size_t rest = write.cdw12 - first_write_sent_;
      if (left < rest) {
        first_write_sent_ += static_cast<uint32_t>(left);
        break;
      }
      left -= rest;
      first_write_sent_ = 0;
      firmware_.complete(writes_.pop(), status::success);
    }
    if (static_cast<size_t>(sent) < total) return await_writable();
  }
}

void Relay::await_writable() {
  if (!writable_.start(socket_.native_handle(), {shared_from_this(), this})) fail_writes(errno);
}

void Relay::fail_writes(int error) {
  first_write_sent_ = 0;
  while (!writes_.empty()) {
    firmware_.complete(writes_.pop(),
                       firmware_.shipped() ? status::internal_error : status::vendor_errno(error));
  }
}

void Relay::close(bool in_order) {
  closed_ = true;
  if (in_order && writes_.empty()) reset_on_close(socket_.native_handle(), false);
  if (opening_ != nullptr) firmware_.complete(*std::exchange(opening_, nullptr), status::internal_error);
  if (!lost_) end_reads(0);
  fail_writes(ECONNABORTED);
  writable_.stop();
  socket_.close();
}

}  // namespace nvsock::csd
