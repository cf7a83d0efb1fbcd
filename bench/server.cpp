#include "bench/server.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "bench/blocks.hpp"
#include "bench/loopback.hpp"

namespace bench {
namespace {

constexpr timeval stall_limit{10, 0};

// Both are false when the connection failed, ended early or stalled: the client notices, and tells.
bool send_all(int fd, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t sent = send(fd, data.data(), data.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EINTR) return false;
    if (sent > 0) data = data.subspan(static_cast<size_t>(sent));
  }
  return true;
}

std::span<std::byte> receive_some(int fd, std::span<std::byte> room) {
  ssize_t got;
  do got = recv(fd, room.data(), room.size(), 0);
  while (got < 0 && errno == EINTR);
  return room.first(got > 0 ? static_cast<size_t>(got) : 0);
}

void echo(int fd, std::span<std::byte> buffer) {
  while (true) {
    const auto data = receive_some(fd, buffer);
    if (data.empty() || !send_all(fd, data)) return;
  }
}

void send_total(int fd, uint64_t total) {
  send_all(fd, std::as_bytes(std::span(&total, 1)));
}

void sink(int fd, std::span<std::byte> buffer, uint32_t block) {
  BlockCounter counter(block);
  while (!counter.ended()) {
    const auto data = receive_some(fd, buffer);
    const auto taken = counter.take(data);
    if (data.empty() || !taken || *taken < data.size()) return;  // nothing may follow the last block
  }
  send_total(fd, counter.total());
}

void source(int fd, std::span<std::byte> block, std::chrono::milliseconds duration) {
  const auto end = Clock::now() + duration;
  uint64_t total = 0;
  bool last = false;
  while (!last) {
    last = Clock::now() >= end;
    block[0] = last ? block_last : block_more;
    if (!send_all(fd, block)) return;
    total += block.size();
  }
  send_total(fd, total);
}

void serve(const Fd connection) {
  const int fd = connection.get();
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &stall_limit, sizeof stall_limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &stall_limit, sizeof stall_limit);

  Request request;
  if (recv(fd, &request, sizeof request, MSG_WAITALL) != sizeof request) return;  // a probe, or not ours
  if (request.block == 0 || request.block > max_block || request.milliseconds > max_milliseconds) return;
  std::vector<std::byte> buffer(max_block);
  switch (request.work) {
    case Work::echo:
      return echo(fd, buffer);
    case Work::sink:
      return sink(fd, buffer, request.block);
    case Work::source:
      return source(fd, std::span(buffer).first(request.block),
                    std::chrono::milliseconds(request.milliseconds));
  }
}

int serve_all(int listener) {
  while (true) {
    Fd connection(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (connection) {
      std::thread(serve, std::move(connection)).detach();
    } else if (errno != EINTR && errno != ECONNABORTED) {
      std::perror("nvsock-bench: server: accept");
      return EXIT_FAILURE;
    }
  }
}

}  // namespace

Result<Server> start_server(int cpu) {
  const Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener) return system_error("socket");
  sockaddr_in address = loopback(0);
  socklen_t length = sizeof address;
  if (bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length) < 0 ||
      listen(listener.get(), SOMAXCONN) < 0 ||
      getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) < 0)
    return system_error("listen on 127.0.0.1");

  auto process = Child::start([&] {
    stay_on(cpu);
    return serve_all(listener.get());
  });
  if (!process) return process.error();
  return Server{std::move(*process), ntohs(address.sin_port)};
}

}  // namespace bench
