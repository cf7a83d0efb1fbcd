#include "libnvsock/socket/stream_splice.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "libnvsock/base/reset_on_close.hpp"
#include "libnvsock/base/socket_error.hpp"

namespace nvsock {
namespace {

// Pieces sent or received before other connections get a turn.
constexpr int pieces_in_a_row = 16;

constexpr int gathered = 64;                 // slices in one sendmsg
constexpr size_t largest_send = 256 * 1024;  // bytes in one sendmsg
// Less room than this in the stream is not worth a recv.
constexpr size_t least_room = Stream::send_limit / 4;

}  // namespace

StreamSplice::StreamSplice(asio::io_context& loop, BufferPool& pool, StreamHandle stream, Ended ended)
    : socket_(loop),
      writable_(loop),
      pool_(pool),
      stream_(std::move(stream)),
      ended_(std::move(ended)),
      timer_(AsioClock(loop).make_timer()) {
  stream_->observe(this);
}

void StreamSplice::connect(const Endpoint& service) {
  sockaddr_storage address{};
  const socklen_t size = service.to_sockaddr(address);
  const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return end(errno);
  assign(fd);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0) return connected(0);
  if (errno != EINPROGRESS) return end(errno);
  timer_->arm(connect_timeout, [this] { end(ETIMEDOUT); });
  await_writable();
}

void StreamSplice::join(int fd) {
  assign(fd);
  connected(0);
}

void StreamSplice::assign(int fd) {
  socket_.assign(fd);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // where it is TCP
  reset_on_close(fd, true);
}

void StreamSplice::on_writable() {
  if (connected_) {
    move();
  } else {
    connected(socket_error(socket_.native_handle()));
  }
}

void StreamSplice::connected(int error) {
  timer_->disarm();
  if (error != 0) return end(error);
  connected_ = true;
  move();
}

void StreamSplice::on_stream_change(Stream&) {
  move();
}

// --- moving ---

void StreamSplice::move() {
  if (std::exchange(moving_, true)) {
    again_ = true;
    return;
  }
  const auto self = shared_from_this();  // `ended` may let go of it
  bool more = false;
  do {
    again_ = false;
    if (stream_->broken()) return end(stream_->error() != 0 ? stream_->error() : ECONNRESET);
    if (connected_) {
      more = move_to_socket();
      if (over_) return;
      more |= move_from_socket();
      if (over_) return;
      if (over()) return end(0);
    }
  } while (again_);
  moving_ = false;
  if (more) {
    asio::post(socket_.get_executor(), [self] {
      if (!self->over_) self->move();
    });
  }
}

// True: there is more to do, and others had to wait.
bool StreamSplice::move_to_socket() {
  for (int i = 0; stream_->readable() > 0 && !writable_.waiting(); ++i) {
    if (i == pieces_in_a_row) return true;
    iovec parts[gathered];
    size_t size = largest_send;
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = static_cast<size_t>(stream_->gather(parts, gathered, size));
    const ssize_t sent = sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) {
      await_writable();  // may end it
      return false;
    }
    if (sent >= 0) {
      stream_->consume(static_cast<size_t>(sent));
      if (service_ended_) await_quiet();
    } else if (errno != EINTR) {
      end(errno == EPIPE ? ECONNRESET : errno);
      return false;
    }
  }
  if (stream_->readable() == 0 && stream_->receive_ended() && !stream_->broken() &&
      !std::exchange(told_service_end_, true)) {
    shutdown(socket_.native_handle(), SHUT_WR);
  }
  return false;
}

bool StreamSplice::move_from_socket() {
  for (int i = 0; stream_->room() >= least_room && !service_ended_ && !awaiting_readable_; ++i) {
    if (i == pieces_in_a_row) return true;
    if (!block_ || !block_.unique()) block_ = pool_.take();
    const size_t size = std::min<size_t>(stream_->room(), block_size);
    const ssize_t received = recv(socket_.native_handle(), block_.data(), size, MSG_DONTWAIT);
    if (received > 0) {
      // All of it is taken: there was room.
      stream_->write({block_, block_.data(), static_cast<uint32_t>(received)});
      // Drained: do not ask just to hear EAGAIN.
      if (static_cast<size_t>(received) < size) await_readable();
    } else if (received == 0) {
      service_ended_ = true;
      stream_->shutdown_write();
      await_quiet();
    } else if (errno == EAGAIN) {
      await_readable();
    } else if (errno != EINTR) {
      end(errno);
      return false;
    }
  }
  return false;
}

void StreamSplice::await_readable() {
  block_ = {};  // idle, it keeps none
  awaiting_readable_ = true;
  socket_.async_wait(asio::posix::stream_descriptor::wait_read,
                     [self = shared_from_this()](const asio::error_code& cancelled) {
                       self->awaiting_readable_ = false;
                       if (!cancelled && !self->over_) self->move();
                     });
}

void StreamSplice::await_quiet() {
  if (!stream_->half_closes()) timer_->arm(quiet_after_end, [this] { end(0); });
}

void StreamSplice::await_writable() {
  if (!writable_.start(socket_.native_handle(), {shared_from_this(), this})) end(errno);
}

// --- ending ---

// Both ends have ended, and each has what the other sent. A drive that wants no more bytes has ended too.
bool StreamSplice::over() const {
  return told_service_end_ && (service_ended_ || stream_->send_ended()) && stream_->unsent() == 0;
}

void StreamSplice::end(int error) {
  if (std::exchange(over_, true)) return;
  const auto self = shared_from_this();
  const auto ended = std::exchange(ended_, {});
  ended(*this, error);
  close(error);
}

void StreamSplice::abort() {
  over_ = true;
  ended_ = {};
  close(ECONNABORTED);
}

void StreamSplice::close(int error) {
  timer_->disarm();
  const bool in_order = error == 0 && over();
  if (stream_) {
    stream_->observe(nullptr);
    if (error != 0) stream_->abort(error);
    stream_.reset();
  }
  block_ = {};
  writable_.stop();
  if (!socket_.is_open()) return;
  if (in_order) reset_on_close(socket_.native_handle(), false);
  asio::error_code ignored;
  socket_.close(ignored);
}

}  // namespace nvsock
