#include "csd/sockets/socket_services.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "libnvsock/base/accept_loop.hpp"
#include "libnvsock/base/reset_on_close.hpp"
#include "libnvsock/base/socket_error.hpp"
#include "libnvsock/base/writable_wait.hpp"

namespace nvsock::csd {
namespace {

using asio::posix::stream_descriptor;

sockaddr_storage name_of(int fd, int (*ask)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  if (ask(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) name = {};
  return name;
}

void set_port(SocketAddress& address, in_port_t port) {
  if (address.bytes.ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(address.bytes).sin6_port = port;
  } else {
    reinterpret_cast<sockaddr_in&>(address.bytes).sin_port = port;
  }
}

// The socket itself. Handlers that are queued outlive the service, and keep this alive; they look at
// `observer`, which is null once the service is gone.
struct Socket final : std::enable_shared_from_this<Socket>, WritableWait::Waiter, Resolver::Asker {
  Socket(SocketServices& owner, bool is_datagram)
      : services(owner), descriptor(owner.loop()), writable(owner.loop()), datagram(is_datagram) {}

  SocketServices& services;
  Service::Observer* observer = nullptr;
  stream_descriptor descriptor;
  WritableWait writable;
  const bool datagram;
  bool connected = false;
  bool closed = false;
  SocketAddresses candidates;
  size_t next_candidate = 0;
  in_port_t port = 0;  // of what a name stands for; network byte order

  void resolve(Client client, const relay_v2::Target& target) {
    candidates = services.resolver().numeric(target);
    if (!candidates.empty()) return start();
    port = htons(target.port);
    services.resolver().resolve(client, target, *this);
  }

  void on_resolved(int error, const SocketAddresses& found) override {
    const auto self = shared_from_this();
    candidates = found;
    for (SocketAddress& address : candidates) set_port(address, port);
    try_next(error);
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
    if (const int error = services.check(address, &Allowed::to_connect); error != 0) return error;
    drop();
    const int fd = services.make_socket(address.bytes.ss_family, datagram ? SOCK_DGRAM : SOCK_STREAM);
    if (fd < 0) return -fd;
    take(fd);
    if (::connect(fd, address.get(), address.size) == 0) return 0;
    if (errno != EINPROGRESS) return errno;
    return writable.start(fd, shared_from_this()) ? EINPROGRESS : errno;
  }

  void on_writable() override {
    if (connected) return observer->on_writable();
    const int error = socket_error(descriptor.native_handle());
    if (error == 0) candidates = {};
    try_next(error);
  }

  void take(int fd) {
    if (!datagram) {
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      reset_on_close(fd, true);
    }
    descriptor.assign(fd);
  }

  void drop() {
    writable.stop();
    asio::error_code ignored;
    descriptor.close(ignored);
  }

  void close() {
    closed = true;
    observer = nullptr;
    withdraw();
    drop();
  }

  void await_readable() {
    descriptor.async_wait(stream_descriptor::wait_read,
                          [self = shared_from_this()](const asio::error_code& cancelled) {
                            if (!cancelled && !self->closed) self->observer->on_readable();
                          });
  }

  // Where the kernel has no room for the wait, the next send() is let to tell.
  void await_writable() {
    if (writable.start(descriptor.native_handle(), shared_from_this())) return;
    asio::post(services.loop(), [self = shared_from_this()] {
      if (!self->closed) self->observer->on_writable();
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

  void close_in_order() override {
    if (!socket_->datagram && socket_->descriptor.is_open()) reset_on_close(fd(), false);
  }

  relay_v2::Opened addresses() const override {
    return {.local = name_of(fd(), getsockname), .peer = name_of(fd(), getpeername)};
  }

 private:
  int fd() const { return socket_->descriptor.native_handle(); }

  const std::shared_ptr<Socket> socket_;
};

class SocketListener final : public ServiceListener {
 public:
  SocketListener(SocketServices& services, int fd, ServiceListener::Observer& observer)
      : accepting_(services.loop(), fd, [&](int accepted, const SocketAddress&) {
          auto socket = std::make_shared<Socket>(services, false);
          socket->take(accepted);
          socket->connected = true;
          observer.on_accepted(std::make_unique<SocketService>(std::move(socket)));
        }) {}

  void pause() override { accepting_.pause(); }
  void resume() override { accepting_.resume(); }
  sockaddr_storage address() const override { return name_of(accepting_.fd(), getsockname); }

 private:
  AcceptLoop accepting_;
};

}  // namespace

SocketServices::SocketServices(asio::io_context& loop, std::shared_ptr<const NetworkNamespace> where,
                               Allowed allowed)
    : loop_(loop),
      where_(std::move(where)),
      allowed_(std::move(allowed)),
      resolver_(loop, where_, {.resolv_conf = where_->resolv_conf()}) {}

int SocketServices::make_socket(int family, int type) const {
  const int fd = where_->make_socket(family, type);
  if (fd >= 0) return fd;
  const int code = errno;
  if (on_no_socket) on_no_socket(code);
  // Out of descriptors is a full drive; EMFILE would read as the client's own limit.
  return code == EMFILE ? -ENFILE : -code;
}

std::unique_ptr<Service> SocketServices::connect(Client client, const relay_v2::Target& target,
                                                 Service::Observer& observer) {
  auto socket = std::make_shared<Socket>(*this, target.type == SocketType::datagram);
  socket->observer = &observer;
  socket->resolve(client, target);
  return std::make_unique<SocketService>(std::move(socket));
}

// REQUIRES: the service came from a listener of this factory.
void SocketServices::observe(Service& service, Service::Observer& observer) {
  static_cast<SocketService&>(service).socket().observer = &observer;
}

Result<std::unique_ptr<ServiceListener>> SocketServices::listen(const relay_v2::Target& target, int backlog,
                                                                ServiceListener::Observer& observer) {
  const auto failed = [](int code) { return Error{code, std::strerror(code)}; };
  const SocketAddresses found = resolver_.numeric(target);
  if (found.empty()) return failed(EADDRNOTAVAIL);
  const SocketAddress& address = found.front();
  if (const int refused = check(address, &Allowed::to_listen); refused != 0) return failed(refused);
  const int fd = make_socket(address.bytes.ss_family, SOCK_STREAM);
  if (fd < 0) return failed(-fd);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, address.get(), address.size) != 0 || ::listen(fd, backlog) != 0) {
    const int code = errno;
    ::close(fd);
    return failed(code);
  }
  return std::unique_ptr<ServiceListener>(std::make_unique<SocketListener>(*this, fd, observer));
}

}  // namespace nvsock::csd
