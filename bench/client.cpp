#include "bench/client.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "bench/loopback.hpp"
#include "libnvsock/base/number.hpp"

namespace bench {
namespace {

// The server sends in blocks of this size whatever the client reads in, so that it is never the slower one.
constexpr uint32_t source_block = 128 << 10;

class Channel {
 public:
  static Result<Channel> open(const ClientOrder& order) {
    return order.target.starts_with('/') ? open_file(order.target) : connect_socket(order);
  }

  // At least one byte; ECONNRESET at the end of the stream, where the protocol never expects it.
  Result<size_t> read_some(std::span<std::byte> room) {
    while (true) {
      const ssize_t got = socket_ ? recv(fd_.get(), room.data(), room.size(), 0)
                                  : ::read(fd_.get(), room.data(), room.size());
      if (got > 0) return static_cast<size_t>(got);
      if (got == 0) return Error{ECONNRESET, "the connection ended early"};
      if (errno != EINTR) return system_error("read");
    }
  }

  Done read_all(std::span<std::byte> room) {
    while (!room.empty()) {
      const auto got = read_some(room);
      if (!got) return got.error();
      room = room.subspan(*got);
    }
    return std::monostate{};
  }

  Done write_all(std::span<const std::byte> data) {
    while (!data.empty()) {
      const ssize_t sent = socket_ ? send(fd_.get(), data.data(), data.size(), MSG_NOSIGNAL)
                                   : ::write(fd_.get(), data.data(), data.size());
      if (sent < 0 && errno != EINTR) return system_error("write");
      if (sent > 0) data = data.subspan(static_cast<size_t>(sent));
    }
    return std::monostate{};
  }

 private:
  Channel(Fd fd, bool socket) : fd_(std::move(fd)), socket_(socket) {}

  static Result<Channel> open_file(const std::string& path) {
    Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd) return system_error("open " + path);
    return Channel(std::move(fd), false);
  }

  static Result<Channel> connect_socket(const ClientOrder& order) {
    uint16_t port = 0;
    if (!nvsock::parse_number(order.target, port))
      return Error{EINVAL, "\"" + order.target + "\" is not a port"};
    const sockaddr_in address = loopback(port);

    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) return system_error("socket");
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
      return system_error("connect to 127.0.0.1:" + order.target);
    const int on = 1;
    if (setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
      return system_error("TCP_NODELAY");
    if (const auto redirected = check_redirected(fd.get(), order.mount); !redirected)
      return redirected.error();
    return Channel(std::move(fd), true);
  }

  // A shim that stands aside would have plain TCP measured in its name.
  static Done check_redirected(int fd, const std::string& mount) {
    std::array<char, 4096> link{};
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    if (readlink(path.c_str(), link.data(), link.size() - 1) < 0) return system_error("readlink " + path);
    const std::string expected = mount.empty() ? "socket:" : mount + "/";
    if (!std::string_view(link.data()).starts_with(expected))
      return Error{EXDEV, std::string("the connection is ") + link.data() + ", which is not in " + expected};
    return std::monostate{};
  }

  Fd fd_;
  bool socket_;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double megabytes_per_second(uint64_t bytes, double seconds) {
  return static_cast<double>(bytes) / 1e6 / seconds;
}

Done check_total(uint64_t here, uint64_t there) {
  if (here == there) return std::monostate{};
  return Error{EBADMSG,
               "this client counted " + std::to_string(here) + " bytes, the server " + std::to_string(there)};
}

Result<std::vector<double>> round_trips(Channel& channel, const ClientOrder& order) {
  std::vector<std::byte> sent(order.bytes);
  std::vector<std::byte> received(order.bytes);
  std::vector<double> microseconds;
  const auto begin = Clock::now();
  for (uint64_t number = 0; Clock::now() - begin < order.duration; ++number) {
    std::memcpy(sent.data(), &number, std::min(sizeof number, sent.size()));
    const auto start = Clock::now();
    if (const auto done = channel.write_all(sent); !done) return done.error();
    if (const auto done = channel.read_all(received); !done) return done.error();
    microseconds.push_back(seconds_since(start) * 1e6);
    if (sent != received)
      return Error{EBADMSG, "round trip " + std::to_string(number) + " returned other bytes"};
  }
  if (microseconds.empty()) return Error{EINVAL, "the time is too short for one round trip"};
  std::sort(microseconds.begin(), microseconds.end());
  return std::vector{microseconds[microseconds.size() / 2], microseconds[microseconds.size() * 99 / 100]};
}

// The clock stops at the server's answer: bytes that are only queued somewhere do not count.
Result<std::vector<double>> writes(Channel& channel, const ClientOrder& order) {
  std::vector<std::byte> block(order.bytes);  // where malloc puts it, not page-aligned: as programs have it
  uint64_t total = 0;
  const auto start = Clock::now();
  for (bool last = false; !last; total += block.size()) {
    last = Clock::now() - start >= order.duration;
    block[0] = last ? block_last : block_more;
    if (const auto done = channel.write_all(block); !done) return done.error();
  }
  uint64_t counted = 0;
  if (const auto done = channel.read_all(std::as_writable_bytes(std::span(&counted, 1))); !done)
    return done.error();
  const double seconds = seconds_since(start);
  if (const auto same = check_total(total, counted); !same) return same.error();
  return std::vector{megabytes_per_second(total, seconds)};
}

Result<std::vector<double>> reads(Channel& channel, const ClientOrder& order) {
  std::vector<std::byte> buffer(order.bytes);
  std::span<std::byte> rest;  // what the read that ended the blocks got behind them
  BlockCounter counter(source_block);
  const auto start = Clock::now();
  while (!counter.ended()) {
    const auto got = channel.read_some(buffer);
    if (!got) return got.error();
    const auto taken = counter.take(std::span(buffer).first(*got));
    if (!taken) return taken.error();
    rest = std::span(buffer).first(*got).subspan(*taken);
  }
  const double seconds = seconds_since(start);

  uint64_t sent = 0;
  const auto answer = std::as_writable_bytes(std::span(&sent, 1));
  if (rest.size() > answer.size()) return Error{EBADMSG, "bytes follow the server's count"};
  std::copy(rest.begin(), rest.end(), answer.begin());
  if (const auto done = channel.read_all(answer.subspan(rest.size())); !done) return done.error();
  if (const auto same = check_total(counter.total(), sent); !same) return same.error();
  return std::vector{megabytes_per_second(counter.total(), seconds)};
}

}  // namespace

Result<std::vector<double>> run_client(const ClientOrder& order) {
  if (order.bytes == 0 || order.bytes > max_block) return Error{EINVAL, "operations have 1 byte to 1 MiB"};
  auto channel = Channel::open(order);
  if (!channel) return channel.error();
  Request request;
  request.work = order.work;
  request.block = order.work == Work::source ? source_block : order.bytes;
  request.milliseconds = static_cast<uint32_t>(order.duration.count());
  if (const auto done = channel->write_all(std::as_bytes(std::span(&request, 1))); !done) return done.error();
  switch (order.work) {
    case Work::echo:
      return round_trips(*channel, order);
    case Work::sink:
      return writes(*channel, order);
    case Work::source:
      return reads(*channel, order);
  }
  return Error{EINVAL, "unknown work"};
}

}  // namespace bench
