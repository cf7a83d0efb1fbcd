#include "bench/echo_server.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>
#include <vector>

namespace bench {
namespace {

class EchoServer {
 public:
  explicit EchoServer(const std::vector<Fd>& listeners) : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    for (const Fd& listener : listeners) {
      listeners_.push_back(listener.get());
      watch(EPOLL_CTL_ADD, listener.get(), EPOLLIN);
    }
  }

  int serve() {
    std::array<epoll_event, 1024> events;
    while (true) {
      const int count = epoll_wait(epoll_.get(), events.data(), events.size(), -1);
      if (count < 0 && errno != EINTR) return EXIT_FAILURE;
      for (int i = 0; i < count; ++i) {
        const int fd = events[static_cast<size_t>(i)].data.fd;
        if (std::find(listeners_.begin(), listeners_.end(), fd) != listeners_.end()) {
          accept_all(fd);
        } else if (!echo(fd)) {
          peers_.erase(fd);
        }
      }
    }
  }

 private:
  struct Peer {
    Fd fd;
    std::vector<std::byte> unsent;  // nothing is received before these have gone
  };

  void watch(int operation, int fd, uint32_t what) {
    epoll_event event{.events = what, .data = {.fd = fd}};
    epoll_ctl(epoll_.get(), operation, fd, &event);
  }

  void accept_all(int listener) {
    while (true) {
      Fd peer(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!peer) {
        if (errno != EAGAIN && errno != ECONNABORTED) std::perror("nvsock-bench: echo server: accept");
        return;
      }
      const int fd = peer.get();
      const int on = 1;
      const linger at_once{1, 0};  // the other end has closed first: spare it TIME_WAIT
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
      watch(EPOLL_CTL_ADD, fd, EPOLLIN);
      peers_.emplace(fd, Peer{std::move(peer), {}});
    }
  }

  // False: the connection is over.
  bool echo(int fd) {
    Peer& peer = peers_.at(fd);
    if (!peer.unsent.empty()) {
      const ssize_t sent = send(fd, peer.unsent.data(), peer.unsent.size(), MSG_NOSIGNAL);
      if (sent < 0) return errno == EAGAIN;
      peer.unsent.erase(peer.unsent.begin(), peer.unsent.begin() + sent);
      if (peer.unsent.empty()) watch(EPOLL_CTL_MOD, fd, EPOLLIN);
      return true;
    }
    const ssize_t got = recv(fd, buffer_.data(), buffer_.size(), 0);
    if (got <= 0) return got < 0 && errno == EAGAIN;
    const ssize_t sent = send(fd, buffer_.data(), static_cast<size_t>(got), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return false;
    if (sent == got) return true;
    peer.unsent.assign(buffer_.begin() + std::max<ssize_t>(sent, 0), buffer_.begin() + got);
    watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
    return true;
  }

  const Fd epoll_;
  std::vector<int> listeners_;
  std::unordered_map<int, Peer> peers_;
  std::array<std::byte, 64 * 1024> buffer_;
};

}  // namespace

void allow_many_descriptors() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

Result<Server> start_echo_server() {
  std::vector<Fd> listeners;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  for (uint32_t i = 0; i < echo_addresses; ++i) {
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + i);  // the port is the first one's
    Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    socklen_t length = sizeof address;
    if (!listener || bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length) < 0 ||
        listen(listener.get(), SOMAXCONN) < 0 ||
        getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) < 0)
      return system_error("listen on 127.0.0." + std::to_string(1 + i));
    listeners.push_back(std::move(listener));
  }
  auto process = Child::start([&] {
    allow_many_descriptors();
    return EchoServer(listeners).serve();
  });
  if (!process) return process.error();
  return Server{std::move(*process), ntohs(address.sin_port)};
}

}  // namespace bench
