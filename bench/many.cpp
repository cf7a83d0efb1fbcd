#include "bench/many.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <deque>
#include <fstream>
#include <memory>
#include <sstream>

#include "bench/echo_server.hpp"
#include "bench/mount.hpp"
#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/device_uri.hpp"
#include "libnvsock/host/dialect_v1.hpp"
#include "libnvsock/host/dialect_v2.hpp"
#include "libnvsock/host/probe.hpp"
#include "libnvsock/port/emulated_port.hpp"

namespace bench {
namespace {

using namespace std::chrono_literals;

constexpr size_t message = 64;
constexpr auto echo_time = 1s;
constexpr size_t bulk_streams = 64;
constexpr size_t bulk_piece = 64 * 1024;
constexpr int bulk_rounds = 16;  // 64 MiB there and 64 MiB back
constexpr auto run_limit = 60s;
constexpr size_t most_relays = 512;  // of the first generation

// What run_many() does its work with.
class Way {
 public:
  virtual ~Way() = default;
  virtual Done open(const std::vector<std::string>& targets) = 0;
  // Sends so many bytes on each of the first `streams` streams and reads them back, all of them at once;
  // again and again until the time is over, at least once. Returns how many messages came back.
  virtual Result<uint64_t> echo(size_t streams, size_t bytes, Clock::duration time) = 0;
  virtual Done close() = 0;  // all of them; back when the drive has closed its ends
  struct Commands {
    uint64_t sent = 0;
    uint64_t most_in_flight = 0;
  };
  virtual Result<Commands> commands() = 0;
  virtual pid_t pid() const = 0;  // of the process that has the drive
};

// A drive that commands take a while to reach, as those to a controller do; 16 may be in flight.
class DistantPort final : public nvsock::CommandPort, private nvsock::PortClient {
 public:
  DistantPort(asio::io_context& loop, std::unique_ptr<nvsock::CommandPort> port, Clock::duration distance)
      : port_(std::move(port)), distance_(distance), timer_(loop) {
    port_->attach(this);
  }

  void submit(nvsock::Command& command) override {
    travelling_.push_back({Clock::now() + distance_, &command});
  }
  void ring() override {
    if (travelling_.empty() || std::exchange(armed_, true)) return;
    timer_.expires_at(travelling_.front().arrival);
    timer_.async_wait([this](const asio::error_code& cancelled) {
      if (cancelled) return;
      armed_ = false;
      for (const auto now = Clock::now(); !travelling_.empty() && travelling_.front().arrival <= now;) {
        port_->submit(*travelling_.front().command);
        travelling_.pop_front();
      }
      port_->ring();
      ring();
    });
  }
  bool stop() override { return port_->stop(); }
  nvsock::PortTraits traits() const override {
    return {.ordered = true, .max_in_flight = 16, .max_blocking = 16};
  }
  std::string describe() const override { return "distant drive"; }

 private:
  void on_batch_end() override { client_->on_batch_end(); }

  struct Travelling {
    Clock::time_point arrival;
    nvsock::Command* command;
  };
  const std::unique_ptr<nvsock::CommandPort> port_;
  const Clock::duration distance_;
  std::deque<Travelling> travelling_;
  asio::steady_timer timer_;
  bool armed_ = false;
};

class LibraryWay final : public Way {
 public:
  // As nvsock::Device does, but for the distance.
  Done start(const ManyOrder& order) {
    const auto uri = nvsock::parse_device_uri(order.device);
    if (!uri) return uri.error();
    auto port = nvsock::open_emulated_port(loop_, std::get<nvsock::EmulatedAddress>(uri->address));
    if (!port) return port.error();
    port_ = std::move(*port);
    const auto second = nvsock::probe_second_generation(loop_, *port_);
    if (order.distance_us > 0)
      port_ = std::make_unique<DistantPort>(loop_, std::move(port_),
                                            std::chrono::microseconds(order.distance_us));
    if (second) {
      dialect_ = std::make_unique<nvsock::DialectV2>(clock_, *port_, second->capabilities,
                                                     nvsock::DialectV2Options{});
    } else {
      dialect_ = std::make_unique<nvsock::DialectV1>(
          clock_, *port_, nvsock::DialectV1Options{.relays = uri->relays(), .log = {}});
    }
    return std::monostate{};
  }

  Done open(const std::vector<std::string>& targets) override {
    clients_.resize(targets.size());
    unfinished_ = targets.size();
    for (size_t i = 0; i < targets.size(); ++i) {
      clients_[i] = std::make_unique<Client>(*this);
      const auto endpoint = nvsock::parse_endpoint(targets[i]);
      auto stream = dialect_->connect(*endpoint, clients_[i].get());
      if (!stream) return stream.error();
      clients_[i]->stream = std::move(*stream);
    }
    return run_while([this] { return unfinished_ > 0; });
  }

  Result<uint64_t> echo(size_t streams, size_t bytes, Clock::duration time) override {
    bytes_ = bytes;
    end_ = Clock::now() + time;
    echoed_ = 0;
    unfinished_ = streams;
    for (size_t i = 0; i < streams; ++i) clients_[i]->send();
    if (const auto done = run_while([this] { return unfinished_ > 0; }); !done) return done.error();
    return echoed_;
  }

  Done close() override {
    clients_.clear();
    return run_while([this] { return dialect_->counters().streams_now > 0; });
  }

  Result<Commands> commands() override {
    return Commands{dialect_->counters().commands, dialect_->counters().max_in_flight};
  }
  pid_t pid() const override { return getpid(); }

 private:
  struct Client final : nvsock::StreamObserver {
    explicit Client(LibraryWay& to) : way(to) {}

    void on_stream_change(nvsock::Stream& changed) override {
      if (changed.error() != 0) {
        way.error_ = changed.error();
      } else if (!connected && changed.state() == nvsock::Stream::State::established) {
        connected = true;
        --way.unfinished_;
      } else if (waiting > 0 && changed.readable() > 0) {
        receive();
      }
    }
    void send() {
      static const std::vector<uint8_t> block(bulk_piece, 'm');
      waiting = way.bytes_;
      stream->write({.buffer = {}, .data = block.data(), .size = static_cast<uint32_t>(way.bytes_)});
    }
    void receive() {
      const size_t size = std::min(waiting, stream->readable());
      waiting -= size;
      stream->consume(size);
      if (waiting > 0) return;
      ++way.echoed_;
      if (Clock::now() < way.end_) return send();
      --way.unfinished_;
    }

    LibraryWay& way;
    nvsock::StreamHandle stream;
    size_t waiting = 0;  // bytes that are to come back
    bool connected = false;
  };

  template <typename Predicate>
  Done run_while(Predicate unfinished) {
    while (unfinished() && error_ == 0) loop_.run_one();
    if (error_ != 0) return Error{error_, "a stream failed with errno " + std::to_string(error_)};
    return std::monostate{};
  }

  asio::io_context loop_{1};
  nvsock::AsioClock clock_{loop_};
  std::unique_ptr<nvsock::CommandPort> port_;
  std::unique_ptr<nvsock::Dialect> dialect_;
  std::vector<std::unique_ptr<Client>> clients_;
  size_t bytes_ = 0;
  Clock::time_point end_;
  uint64_t echoed_ = 0;
  size_t unfinished_ = 0;
  int error_ = 0;
};

// One file after the other, as one thread does it: each reads what came meanwhile.
class MountWay final : public Way {
 public:
  MountWay(std::string directory, pid_t csdfs) : directory_(std::move(directory)), csdfs_(csdfs) {}

  Done open(const std::vector<std::string>& targets) override {
    for (const std::string& target : targets) {
      files_.emplace_back(::open((directory_ + "/tcp/" + target).c_str(), O_RDWR | O_CLOEXEC));
      if (!files_.back()) return system_error("open " + target);
    }
    return std::monostate{};
  }

  Result<uint64_t> echo(size_t streams, size_t bytes, Clock::duration time) override {
    static std::array<std::byte, bulk_piece> block;
    const auto end = Clock::now() + time;
    uint64_t echoed = 0;
    do {
      for (size_t i = 0; i < streams; ++i) {
        if (write(files_[i].get(), block.data(), bytes) != static_cast<ssize_t>(bytes))
          return system_error("write");
      }
      for (size_t i = 0; i < streams; ++i, ++echoed) {
        for (size_t got = 0; got < bytes;) {
          const ssize_t part = read(files_[i].get(), block.data(), bytes - got);
          if (part <= 0) return system_error("read");
          got += static_cast<size_t>(part);
        }
      }
    } while (Clock::now() < end);
    return echoed;
  }

  Done close() override {
    files_.clear();
    while (true) {
      const auto left = status("connections in use: ");
      if (!left) return left.error();
      if (*left == 0) return std::monostate{};
    }
  }

  Result<Commands> commands() override {
    const auto sent = status("commands: ");
    const auto most = status("most commands in flight: ");
    if (!sent || !most) return Error{EPROTO, "the mount's status has no counters"};
    return Commands{*sent, *most};
  }
  pid_t pid() const override { return csdfs_; }

 private:
  Result<uint64_t> status(std::string_view name) const {
    std::ifstream file(directory_ + "/status");
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with(name)) return std::stoull(line.substr(name.size()));
    }
    return Error{EPROTO, "the mount's status does not tell \"" + std::string(name) + "\""};
  }

  const std::string directory_;
  const pid_t csdfs_;
  std::vector<Fd> files_;
};

double resident_bytes(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");  // proc(5): the second number, in pages
  double all = 0;
  double resident = 0;
  file >> all >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

Result<ManyFigures> run(Way& way, const ManyOrder& order) {
  std::vector<std::string> targets(order.streams);
  for (size_t i = 0; i < targets.size(); ++i)
    targets[i] = "127.0.0." + std::to_string(1 + i % echo_addresses) + ":" + std::to_string(order.port);
  const auto streams = static_cast<double>(order.streams);
  ManyFigures figures{.streams = streams};

  const double empty = resident_bytes(way.pid());
  auto start = Clock::now();
  if (const auto done = way.open(targets); !done) return done.error();
  figures.open_us = microseconds_since(start) / streams;
  figures.bytes_per_stream = (resident_bytes(way.pid()) - empty) / streams;

  // All at once before it counts: so that every pool has what it needs.
  if (const auto done = way.echo(order.streams, message, 0s); !done) return done.error();
  const auto before = way.commands();
  start = Clock::now();
  const auto echoed = way.echo(order.streams, message, echo_time);
  if (!echoed) return echoed.error();
  figures.messages_per_second = static_cast<double>(*echoed) * 1e6 / microseconds_since(start);
  const auto after = way.commands();
  if (!before || !after) return Error{EPROTO, "no count of commands"};
  figures.commands_per_thousand =
      1000 * static_cast<double>(after->sent - before->sent) / static_cast<double>(*echoed);

  for (int round = 0; round < bulk_rounds; ++round) {
    if (const auto done = way.echo(std::min(order.streams, bulk_streams), bulk_piece, 0s); !done)
      return done.error();
  }
  const auto moved = way.commands();
  if (!moved) return moved.error();
  figures.commands_per_megabyte =
      1e6 * static_cast<double>(moved->sent - after->sent) /
      static_cast<double>(2 * bulk_rounds * bulk_piece * std::min(order.streams, bulk_streams));
  figures.most_in_flight = static_cast<double>(moved->most_in_flight);

  start = Clock::now();
  if (const auto done = way.close(); !done) return done.error();
  figures.close_us = microseconds_since(start) / streams;
  return figures;
}

Result<ManyRow> run_in_process(const std::string& name, const ManyOrder& order) {
  const Command client{
      {"/proc/self/exe", "many", order.device, std::to_string(order.distance_us), order.mount,
       std::to_string(order.csdfs), std::to_string(order.port), std::to_string(order.streams)},
      {}};
  const auto output = output_of(client, Clock::now() + run_limit);
  if (!output) return Error{output.error().code, name + ": " + output.error().text};
  ManyRow row{name, {}};
  std::istringstream text(*output);
  for (const Named& named : named_figures) text >> row.figures.*named.figure;
  if (!text) return Error{EPROTO, name + ": the client's answer is malformed"};
  return row;
}

}  // namespace

Result<ManyFigures> run_many(const ManyOrder& order) {
  allow_many_descriptors();
  if (!order.mount.empty()) {
    MountWay way(order.mount, order.csdfs);
    return run(way, order);
  }
  LibraryWay way;
  if (const auto done = way.start(order); !done) return done.error();
  return run(way, order);
}

Result<std::vector<ManyRow>> measure_many(const std::string& csdfs, size_t streams) {
  const auto server = start_echo_server();
  if (!server) return server.error();
  const std::string first = "emu:?dialect=v1&relays=" + std::to_string(most_relays);
  const std::string second = "emu:?dialect=v2";
  const auto mount = Mount::start(csdfs, second);
  if (!mount) return mount.error();

  std::vector<ManyRow> rows;
  for (const auto& [name, order] :
       {std::pair{"v1", ManyOrder{first, 0, "", 0, server->port, std::min(streams, most_relays)}},
        std::pair{"v2", ManyOrder{second, 0, "", 0, server->port, streams}},
        std::pair{"v2, 100 us", ManyOrder{second, 100, "", 0, server->port, streams}},
        std::pair{"v2, mount",
                  ManyOrder{"", 0, (*mount)->directory(), (*mount)->pid(), server->port, streams}}}) {
    auto row = run_in_process(name, order);
    if (!row) return row.error();
    rows.push_back(std::move(*row));
  }
  return rows;
}

}  // namespace bench
