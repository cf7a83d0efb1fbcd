// What the unit tests share: running the loop to a condition, and the far ends of TCP connections.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "libnvsock/base/result.hpp"

namespace nvsock::test {

using namespace std::chrono_literals;

// Long enough for a sanitizer on a loaded machine; only a failing test waits so long.
inline constexpr std::chrono::seconds patience{20};

// Runs the loop until `done()`, at most for `bound`; returns what done() said last.
template <typename Predicate>
[[nodiscard]] bool run_until(asio::io_context& loop, Predicate done, std::chrono::seconds bound = patience) {
  const auto deadline = std::chrono::steady_clock::now() + bound;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    if (loop.stopped()) loop.restart();
    loop.run_one_for(10ms);  // done() may look at what no handler tells
  }
  return true;
}

// A sentence for people: says which value, ends without punctuation of its own, is one line.
template <typename T>
void expect_sentence(const Result<T>& result, std::string_view names) {
  ASSERT_FALSE(result) << "accepted: " << names;
  const std::string& text = result.error().text;
  EXPECT_NE(text.find(names), std::string::npos) << text << "\n  does not name " << names;
  EXPECT_EQ(text.find_first_of("\r\n"), std::string::npos) << text;
}

// One end of a TCP connection, as a plain socket.
class Peer {
 public:
  Peer() = default;
  explicit Peer(int fd) : fd_(fd) {}
  Peer(Peer&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Peer& operator=(Peer&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Peer() { close(); }

  int fd() const { return fd_; }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void reset() {
    const linger at_once{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close();
  }
  void end_writing() { shutdown(fd_, SHUT_WR); }

  void send(std::string_view bytes) {
    ASSERT_EQ(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // What has arrived, without waiting.
  std::string receive_some() {
    std::string all;
    char part[65536];
    for (;;) {
      const ssize_t size = recv(fd_, part, sizeof part, MSG_DONTWAIT);
      if (size > 0) all.append(part, static_cast<size_t>(size));
      if (size == 0) ended_ = true;
      if (size <= 0) return all;
    }
  }
  bool ended() const { return ended_; }
  short poll_events() const {
    pollfd entry{fd_, POLLIN | POLLRDNORM | POLLRDHUP | POLLOUT | POLLWRNORM | POLLPRI, 0};
    poll(&entry, 1, 0);
    return entry.revents;
  }
  bool await_events(short wanted) const {
    pollfd entry{fd_, wanted, 0};
    return poll(&entry, 1, static_cast<int>(std::chrono::milliseconds(patience).count())) == 1;
  }

 private:
  int fd_ = -1;
  bool ended_ = false;
};

// A service on 127.0.0.1 whose connections the test holds itself.
class Listener {
 public:
  explicit Listener(int backlog = 16, int receive_buffer = 0)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_, backlog), 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  ~Listener() { close(); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  uint16_t port() const { return port_; }
  std::string text() const { return "127.0.0.1:" + std::to_string(port_); }
  bool has_connection() const {
    pollfd entry{fd_, POLLIN, 0};
    return poll(&entry, 1, 0) == 1;
  }
  // The next connection; waits for it.
  Peer accept() {
    pollfd entry{fd_, POLLIN, 0};
    EXPECT_EQ(poll(&entry, 1, static_cast<int>(std::chrono::milliseconds(patience).count())), 1)
        << "no connection";
    return Peer(accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC));
  }
  // A connection to this service; may not be established yet.
  Peer connect() const {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const sockaddr_in address = loopback(port_);
    ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    return Peer(fd);
  }
  // From now on connections are refused.
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  static sockaddr_in loopback(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  int fd_;
  uint16_t port_ = 0;
};

// Bytes that show where they belong: a shift or a swap is visible.
inline std::string pattern(size_t size, uint32_t seed = 1) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) {
    seed = seed * 1664525u + 1013904223u;
    byte = static_cast<char>(seed >> 24);
  }
  return bytes;
}

}  // namespace nvsock::test
