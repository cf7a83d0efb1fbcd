#include "libnvsock/base/accept_loop.hpp"

#include <sys/socket.h>

#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <utility>

namespace nvsock {
namespace {

constexpr int accepts_at_once = 16;
constexpr auto rest_time = std::chrono::milliseconds(100);

bool is_exhaustion(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

}  // namespace

struct AcceptLoop::State : std::enable_shared_from_this<State> {
  State(asio::io_context& loop, int fd, Accepted to)
      : accepted(std::move(to)), socket(loop, fd), timer(loop) {}

  Accepted accepted;
  asio::posix::stream_descriptor socket;
  asio::steady_timer timer;
  bool paused = false;
  bool waiting = false;  // for a connection, or for the end of a rest
  bool closed = false;

  void await() {
    if (paused || closed || std::exchange(waiting, true)) return;
    socket.async_wait(asio::posix::stream_descriptor::wait_read,
                      [self = shared_from_this()](const asio::error_code& cancelled) {
                        self->waiting = false;
                        if (!cancelled) self->accept();
                      });
  }

  void accept() {
    for (int i = 0; i < accepts_at_once && !paused && !closed; ++i) {
      SocketAddress peer;
      peer.size = sizeof peer.bytes;
      const int fd = accept4(socket.native_handle(), reinterpret_cast<sockaddr*>(&peer.bytes), &peer.size,
                             SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd >= 0) {
        accepted(fd, peer);
      } else if (errno == EAGAIN) {
        break;
      } else if (is_exhaustion(errno)) {
        return rest();
      }  // else that connection is gone already
    }
    await();
  }

  void rest() {
    waiting = true;
    timer.expires_after(rest_time);
    timer.async_wait([self = shared_from_this()](const asio::error_code&) {
      self->waiting = false;
      self->await();
    });
  }
};

AcceptLoop::AcceptLoop(asio::io_context& loop, int fd, Accepted accepted)
    : state_(std::make_shared<State>(loop, fd, std::move(accepted))) {
  state_->await();
}

AcceptLoop::~AcceptLoop() {
  state_->closed = true;
  state_->timer.cancel();
  asio::error_code ignored;
  state_->socket.close(ignored);
}

void AcceptLoop::pause() {
  state_->paused = true;
}

void AcceptLoop::resume() {
  state_->paused = false;
  state_->await();
}

int AcceptLoop::fd() const {
  return state_->socket.native_handle();
}

}  // namespace nvsock
