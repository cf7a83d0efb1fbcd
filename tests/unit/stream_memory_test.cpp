// What an idle stream costs in memory, at each end: docs/relay-protocol.md promises thousands.
//
// A program of its own, because it takes the place of operator new: every allocation is counted for the end
// whose code was running. Whatever the command port calls is the drive; its completions are the host again.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/host/dialect_v2.hpp"
#include "libnvsock/host/probe.hpp"
#include "libnvsock/port/emulated_port.hpp"
#include "tests/unit/support.hpp"

namespace {

enum class End : uint32_t { nobody, host, drive };

constinit thread_local End running = End::nobody;
constinit std::atomic<size_t> held[3] = {};  // bytes, by End

class Runs {
 public:
  explicit Runs(End end) : before_(std::exchange(running, end)) {}
  ~Runs() { running = before_; }

 private:
  const End before_;
};

// Before each block, at the end of the room its alignment leaves.
struct alignas(16) Header {
  uint32_t offset;  // of the block in what malloc gave
  End end;
  size_t bytes;
};

// As glibc's malloc has it: a size field before the block, and multiples of 16.
size_t bytes_for(size_t size) {
  return std::max<size_t>(32, (size + 8 + 15) & ~size_t{15});
}

void* allocate(size_t size, size_t alignment = alignof(Header)) {
  const size_t offset = std::max(alignment, sizeof(Header));
  auto* const memory =
      static_cast<char*>(std::aligned_alloc(alignment, (offset + size + alignment - 1) & ~(alignment - 1)));
  if (memory == nullptr) throw std::bad_alloc();
  char* const block = memory + offset;
  new (block - sizeof(Header)) Header{static_cast<uint32_t>(offset), running, bytes_for(size)};
  held[static_cast<size_t>(running)] += bytes_for(size);
  return block;
}

void release(void* block) noexcept {
  if (block == nullptr) return;
  const auto* header = reinterpret_cast<Header*>(static_cast<char*>(block) - sizeof(Header));
  held[static_cast<size_t>(header->end)] -= header->bytes;
  std::free(static_cast<char*>(block) - header->offset);
}

}  // namespace

void* operator new(size_t size) {
  return allocate(size);
}
void* operator new(size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<size_t>(alignment));
}
void operator delete(void* block) noexcept {
  release(block);
}
void operator delete(void* block, size_t) noexcept {
  release(block);
}
void operator delete(void* block, std::align_val_t) noexcept {
  release(block);
}
void operator delete(void* block, size_t, std::align_val_t) noexcept {
  release(block);
}

namespace nvsock {
namespace {

constexpr size_t streams = 1000;
constexpr size_t limit = 2048;  // bytes an idle stream may cost at each end

// The border between the two ends.
class Border final : public CommandPort, private PortClient {
 public:
  explicit Border(CommandPort& port) : port_(port) { port.attach(this); }

  void submit(Command& command) override {
    const Runs as(End::drive);
    done_ = command.done;  // the same function for all of this host's
    instance_ = this;
    command.done = [](Command& completed) {
      const Runs host(End::host);
      instance_->done_(completed);
    };
    port_.submit(command);
  }
  void ring() override {
    const Runs as(End::drive);
    port_.ring();
  }
  bool stop() override { return port_.stop(); }
  PortTraits traits() const override { return port_.traits(); }
  std::string describe() const override { return port_.describe(); }

 private:
  void on_batch_end() override {
    const Runs as(End::host);
    if (client_ != nullptr) client_->on_batch_end();
  }

  static inline Border* instance_ = nullptr;
  CommandPort& port_;
  void (*done_)(Command&) = nullptr;
};

class StreamMemoryTest : public ::testing::Test, private StreamObserver {
 protected:
  static constexpr size_t group = 50;  // streams that are busy at a time

  struct Connection {
    StreamHandle stream;
    test::Peer service;
  };

  void on_stream_change(Stream&) override {}

  template <typename Predicate>
  void run_until(Predicate done) {
    const Runs as(End::drive);  // what the loop calls are the drive's sockets
    ASSERT_TRUE(test::run_until(loop, done));
  }

  void open(size_t count) {
    const auto endpoint = *parse_endpoint(listener.text());
    for (size_t i = 0; i < count; ++i) {
      {
        const Runs as(End::host);
        auto stream = dialect->connect(endpoint, this);
        ASSERT_TRUE(stream);
        connections[i].stream = std::move(*stream);
      }
      run_until([&] { return listener.has_connection(); });
      connections[i].service = listener.accept();
    }
    run_until([&] {
      return std::all_of(connections.begin(), connections.begin() + static_cast<ptrdiff_t>(count),
                         [](const auto& each) { return each.stream->state() == Stream::State::established; });
    });
  }

  // Everything there and back. The services echo when all has arrived, and the host reads when all is back:
  // so every queue on the way was long.
  void echo(size_t first, const std::string& bytes) {
    std::vector<std::string> got(group);
    for (size_t i = 0; i < group; ++i) {
      const Runs as(End::host);
      ASSERT_EQ(
          connections[first + i].stream->write(
              {{}, reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<uint32_t>(bytes.size())}),
          bytes.size());
    }
    run_until([&] {
      const Runs as(End::nobody);
      bool all = true;
      for (size_t i = 0; i < group; ++i) {
        got[i] += connections[first + i].service.receive_some();
        all = all && got[i].size() == bytes.size();
      }
      return all;
    });
    std::vector<size_t> sent(group);
    run_until([&] {
      bool all = true;
      for (size_t i = 0; i < group; ++i) {
        const ssize_t part = ::send(connections[first + i].service.fd(), got[i].data() + sent[i],
                                    got[i].size() - sent[i], MSG_DONTWAIT | MSG_NOSIGNAL);
        if (part > 0) sent[i] += static_cast<size_t>(part);
        all = all && connections[first + i].stream->readable() == bytes.size();
      }
      return all;
    });
    for (size_t i = 0; i < group; ++i) {
      const Runs as(End::host);
      connections[first + i].stream->consume(bytes.size());
    }
  }

  void use(size_t count) {
    for (size_t first = 0; first < count; first += group) {
      for (int i = 0; i < 3; ++i) echo(first, test::pattern(3000));
      echo(first, test::pattern(200'000));
    }
  }

  void close_all() {
    for (Connection& each : connections) {
      {
        const Runs as(End::host);
        each.stream.reset();
      }
      each.service.close();
    }
    run_until([&] { return dialect->drained(); });
  }

  void TearDown() override { close_all(); }

  void SetUp() override {
    rlimit descriptors{};
    getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    setrlimit(RLIMIT_NOFILE, &descriptors);
    auto opened = open_emulated_port(loop, parse_device_uri("emu:?dialect=v2")->emulated);
    ASSERT_TRUE(opened);
    port = std::move(*opened);
    const auto second = probe_capabilities(loop, *port);
    ASSERT_TRUE(second) << second.error().text;
    border = std::make_unique<Border>(*port);
    const Runs as(End::host);
    dialect = std::make_unique<DialectV2>(clock, *border, second->capabilities, DialectV2Options{});
  }

  asio::io_context loop;
  AsioClock clock{loop};
  test::Listener listener{static_cast<int>(streams)};
  std::unique_ptr<CommandPort> port;
  std::unique_ptr<Border> border;
  std::unique_ptr<DialectV2> dialect;
  std::vector<Connection> connections{streams};
};

// What the pools of both ends keep for reuse is there after a few busy streams, and belongs to none. What
// Asio keeps of a closed descriptor it uses for the next one: those few are not counted as streams.
TEST_F(StreamMemoryTest, an_idle_stream_costs_at_most_2_KiB_at_each_end) {
  open(group);
  use(group);
  close_all();
  const size_t host_before = held[static_cast<size_t>(End::host)];
  const size_t drive_before = held[static_cast<size_t>(End::drive)];
  const auto told = [&](const char* when) {
    const size_t host = (held[static_cast<size_t>(End::host)] - host_before) / (streams - group);
    const size_t drive = (held[static_cast<size_t>(End::drive)] - drive_before) / (streams - group);
    std::printf("an idle stream, %s: %zu bytes on the host, %zu in the drive\n", when, host, drive);
    EXPECT_GT(host, 100u) << "nothing was counted";
    EXPECT_GT(drive, 100u) << "nothing was counted";
    EXPECT_LE(host, limit);
    EXPECT_LE(drive, limit);
  };

  open(streams);
  told("never used");
  use(streams);
  told("used");
}

}  // namespace
}  // namespace nvsock
