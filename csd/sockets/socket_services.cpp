#include "csd/sockets/socket_services.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <utility>

#include "libnvsock/base/socket_error.hpp"

namespace nvsock::csd {
namespace {

using asio::posix::stream_descriptor;

// Connections taken in one go, so that a flood of them does not keep the loop from everything else.
constexpr int accepts_at_once = 16;
// After an accept that failed for want of descriptors or memory: the connection stays readable.
constexpr auto accept_pause = std::chrono::milliseconds(100);

sockaddr_storage name_of(int fd, int (*ask)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  if (ask(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) name = {};
  return name;
}

// The socket itself. Handlers that are queued outlive the service, and keep this alive; they look at
// `observer`, which is null once the service is gone.
struct Socket : std::enable_shared_from_this<Socket> {
  Socket(SocketServices& owner, bool is_datagram)
      : services(owner), descriptor(owner.loop()), datagram(is_datagram) {}

  SocketServices& services;
  Service::Observer* observer = nullptr;
  stream_descriptor descriptor;
  const bool datagram;
  bool connected = false;
  bool closed = false;
  SocketAddresses candidates;
  size_t next_candidate = 0;

  void resolve(const relay_v2::Target& target) {
    candidates = Resolver::numeric(target);
    if (!candidates.empty()) return start();
    services.resolver().resolve(target, [self = shared_from_this()](SocketAddresses found) {
      if (self->closed) return;
      self->candidates = std::move(found);
      self->try_next(EHOSTUNREACH);  // section 7: a name that cannot be resolved
    });
  }

  // Not from within connect(): a failure, or success at once, is told from the loop.
  void start() {
    asio::post(services.loop(), [self = shared_from_this()] {
      if (!self->closed) self->try_next(EHOSTUNREACH);
    });
  }

  void try_next(int error) {
    while (next_candidate < candidates.size()) {
      error = try_connect(candidates[next_candidate++]);
      if (error == EINPROGRESS) return;
      if (error == 0) break;
    }
    if (error != 0) return observer->on_connected(error);
    connected = true;
    candidates = {};
    observer->on_connected(0);  // last: it may destroy the service
  }

  int try_connect(const SocketAddress& address) {
    if (const int error = services.check(address); error != 0) return error;
    drop();
    const int fd = services.make_socket(address.bytes.ss_family, datagram ? SOCK_DGRAM : SOCK_STREAM);
    if (fd < 0) return -fd;
    take(fd);
    if (::connect(fd, address.get(), address.size) == 0) return 0;
    if (errno != EINPROGRESS) return errno;
    descriptor.async_wait(stream_descriptor::wait_write,
                          [self = shared_from_this()](const asio::error_code& cancelled) {
                            if (cancelled || self->closed) return;
                            const int error = socket_error(self->descriptor.native_handle());
                            self->ignore_writable();
                            if (error != 0) return self->try_next(error);
                            self->candidates = {};
                            self->try_next(0);
                          });
    return EINPROGRESS;
  }

  void take(int fd) {
    if (!datagram) {
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    descriptor.assign(fd);
  }

  void drop() {
    asio::error_code ignored;
    descriptor.close(ignored);
  }

  void close() {
    closed = true;
    observer = nullptr;
    drop();
  }

  // See Relay::ignore_writable(): after a wait for room Asio goes on watching for it. Registering anew ends
  // that; it cancels a wait for input, whose handler takes the cancellation for an event.
  void ignore_writable() {
    const int fd = descriptor.release();
    descriptor.assign(fd);
  }

  void await_readable() {
    descriptor.async_wait(stream_descriptor::wait_read,
                          [self = shared_from_this()](const asio::error_code& cancelled) {
                            if (self->closed) return;
                            if (cancelled) return self->await_readable();  // ignore_writable() did it
                            self->observer->on_readable();
                          });
  }

  void await_writable() {
    descriptor.async_wait(stream_descriptor::wait_write,
                          [self = shared_from_this()](const asio::error_code& cancelled) {
                            if (cancelled || self->closed) return;
                            self->ignore_writable();
                            self->observer->on_writable();
                          });
  }
};

class SocketService final : public Service {
 public:
  explicit SocketService(std::shared_ptr<Socket> socket) : socket_(std::move(socket)) {}
  ~SocketService() override { socket_->close(); }

  Socket& socket() { return *socket_; }

  ssize_t receive(std::span<uint8_t> into, bool& datagram) override {
    datagram = socket_->datagram;
    ssize_t received;
    do {
      // MSG_TRUNC tells the whole size of a datagram that was cut.
      received =
          recv(fd(), into.data(), into.size(), socket_->datagram ? MSG_DONTWAIT | MSG_TRUNC : MSG_DONTWAIT);
    } while (received < 0 && errno == EINTR);
    if (received < 0) return -errno;
    return static_cast<size_t>(received) > into.size() ? -EMSGSIZE : received;
  }

  ssize_t send(std::span<const uint8_t> from) override {
    ssize_t sent;
    do {
      sent = ::send(fd(), from.data(), from.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
  }

  void await_readable() override { socket_->await_readable(); }
  void await_writable() override { socket_->await_writable(); }
  void shut_down_sending() override { shutdown(fd(), SHUT_WR); }

  void reset_on_close() override {
    if (!socket_->descriptor.is_open()) return;
    const linger now{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }

  relay_v2::Opened addresses() const override {
    return {.local = name_of(fd(), getsockname), .peer = name_of(fd(), getpeername)};
  }

 private:
  int fd() const { return socket_->descriptor.native_handle(); }

  const std::shared_ptr<Socket> socket_;
};

struct ListeningSocket : std::enable_shared_from_this<ListeningSocket> {
  ListeningSocket(SocketServices& owner, int fd, Listener::Observer& to)
      : services(owner), observer(&to), descriptor(owner.loop(), fd), timer(owner.loop()) {}

  SocketServices& services;
  Listener::Observer* observer;
  stream_descriptor descriptor;
  asio::steady_timer timer;
  bool paused = false;
  bool waiting = false;
  bool closed = false;

  void await() {
    if (paused || closed || std::exchange(waiting, true)) return;
    descriptor.async_wait(stream_descriptor::wait_read,
                          [self = shared_from_this()](const asio::error_code& cancelled) {
                            self->waiting = false;
                            if (!cancelled) self->accept();
                          });
  }

  void accept() {
    for (int i = 0; i < accepts_at_once && !paused && !closed; ++i) {
      const int fd = accept4(descriptor.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) return rest();
        if (errno == EAGAIN) break;
        continue;  // that connection is gone already
      }
      auto socket = std::make_shared<Socket>(services, false);
      socket->take(fd);
      socket->connected = true;
      observer->on_accepted(std::make_unique<SocketService>(std::move(socket)));
    }
    await();
  }

  void rest() {
    waiting = true;
    timer.expires_after(accept_pause);
    timer.async_wait([self = shared_from_this()](const asio::error_code&) {
      self->waiting = false;
      self->await();
    });
  }

  void close() {
    closed = true;
    observer = nullptr;
    timer.cancel();
    asio::error_code ignored;
    descriptor.close(ignored);
  }
};

class SocketListener final : public Listener {
 public:
  explicit SocketListener(std::shared_ptr<ListeningSocket> socket) : socket_(std::move(socket)) {
    socket_->await();
  }
  ~SocketListener() override { socket_->close(); }

  void pause() override { socket_->paused = true; }
  void resume() override {
    socket_->paused = false;
    socket_->await();
  }
  sockaddr_storage address() const override {
    return name_of(socket_->descriptor.native_handle(), getsockname);
  }

 private:
  const std::shared_ptr<ListeningSocket> socket_;
};

}  // namespace

SocketServices::SocketServices(asio::io_context& loop, std::shared_ptr<const NetworkNamespace> where,
                               AllowList allowed)
    : loop_(loop), where_(std::move(where)), allowed_(std::move(allowed)), resolver_(loop, where_) {}

int SocketServices::make_socket(int family, int type) const {
  const int fd = where_->make_socket(family, type);
  if (fd >= 0) return fd;
  // Out of descriptors is a full drive; EMFILE would read as the client's own limit.
  return errno == EMFILE ? -ENFILE : -errno;
}

std::unique_ptr<Service> SocketServices::connect(const relay_v2::Target& target,
                                                 Service::Observer& observer) {
  auto socket = std::make_shared<Socket>(*this, target.type == relay_v2::SocketType::datagram);
  socket->observer = &observer;
  socket->resolve(target);
  return std::make_unique<SocketService>(std::move(socket));
}

// REQUIRES: the service came from a listener of this factory.
void SocketServices::observe(Service& service, Service::Observer& observer) {
  static_cast<SocketService&>(service).socket().observer = &observer;
}

std::unique_ptr<Listener> SocketServices::listen(const relay_v2::Target& target, int backlog,
                                                 Listener::Observer& observer, int& error) {
  const SocketAddresses found = Resolver::numeric(target);
  error = found.empty() ? EADDRNOTAVAIL : check(found.front());
  if (error != 0) return nullptr;
  const SocketAddress& address = found.front();
  const int fd = make_socket(address.bytes.ss_family, SOCK_STREAM);
  if (fd < 0) {
    error = -fd;
    return nullptr;
  }
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, address.get(), address.size) != 0 || ::listen(fd, backlog) != 0) {
    error = errno;
    ::close(fd);
    return nullptr;
  }
  return std::make_unique<SocketListener>(std::make_shared<ListeningSocket>(*this, fd, observer));
}

}  // namespace nvsock::csd
