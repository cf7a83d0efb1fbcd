// Services of the host inside the drive: listeners over the embedded drive, with real sockets on both sides.
#include <map>

#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/device.hpp"
#include "libnvsock/host/dialect_v2.hpp"
#include "libnvsock/host/probe.hpp"
#include "libnvsock/port/emulated_port.hpp"
#include "libnvsock/socket/listener.hpp"
#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using test::Peer;

// The embedded drive, which can lose everything, as one does whose power fails.
class FailingPort final : public CommandPort {
 public:
  explicit FailingPort(asio::io_context& loop) : loop_(loop) { start(); }

  void submit(Command& command) override {
    with_drive_[&command] = command.done;
    by_ = this;
    command.done = [](Command& done) {
      const auto call = by_->with_drive_.extract(&done).mapped();
      call(done);
    };
    if (!holding_) drive_->submit(command);
  }
  void ring() override {
    drive_->attach(client_);
    drive_->ring();
  }
  bool stop() override { return drive_->stop(); }
  PortTraits traits() const override { return drive_->traits(); }
  std::string describe() const override { return drive_->describe(); }

  // What is submitted from now on does not reach the drive.
  void hold() { holding_ = true; }
  void lose_everything() {
    holding_ = false;
    drive_->stop();
    start();
    while (!with_drive_.empty()) {
      Command& command = *with_drive_.begin()->first;
      command.completion = {.error = ECANCELED, .status = 0, .dw0 = 0};
      command.done(command);
    }
    client_->on_batch_end();
  }

 private:
  void start() {
    auto opened = open_emulated_port(loop_, {});
    ASSERT_TRUE(opened);
    drive_ = std::move(*opened);
  }

  static inline FailingPort* by_ = nullptr;
  asio::io_context& loop_;
  bool holding_ = false;
  std::unique_ptr<CommandPort> drive_;
  std::map<Command*, decltype(Command::done)> with_drive_;
};

struct StreamWatcher final : StreamObserver {
  void on_stream_change(Stream&) override {}
};

struct Service final : ListenerObserver {
  void on_listening(Listener&, const sockaddr_storage& at) override {
    ++listening;
    address = reinterpret_cast<const sockaddr_in&>(at);
  }
  void on_listen_failed(Listener&, const Error& error) override { errors.push_back(error); }
  void on_accepted(Listener&, StreamHandle& stream) override {
    ++offered;
    if (takes) streams.push_back(std::move(stream));
  }

  unsigned listening = 0;
  unsigned offered = 0;
  bool takes = true;
  sockaddr_in address{};
  std::vector<Error> errors;
  std::vector<StreamHandle> streams;
};

class ListenerTest : public ::testing::Test {
 protected:
  ListenerTest() : port(loop), clock(loop) {
    const auto drive = probe_second_generation(loop, port);
    dialect = std::make_unique<DialectV2>(clock, port, drive->capabilities,
                                          DialectV2Options{.session = {.handle = 7}, .log = {}});
  }

  // Port 0: the drive chooses one, and tells.
  void listen(uint16_t at = 0) {
    auto opened = dialect->listen({.host = "127.0.0.1", .port = at}, 16, &service);
    ASSERT_TRUE(opened);
    listener = std::move(*opened);
  }
  void listen_and_wait() {
    listen();
    ASSERT_TRUE(run_until([&] { return service.listening == 1; }));
  }
  Peer connect() const {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&service.address), sizeof service.address) == 0) {
      return Peer(fd);
    }
    connect_error = errno;
    close(fd);
    return Peer();
  }
  bool run_until(const std::function<bool()>& done) { return test::run_until(loop, done); }
  // A new connection and its stream.
  Peer connection() {
    const size_t before = service.streams.size();
    Peer peer = connect();
    EXPECT_TRUE(run_until([&] { return service.streams.size() > before; }));
    return peer;
  }
  static void write(Stream& stream, std::string_view text) {
    stream.write({{}, reinterpret_cast<const uint8_t*>(text.data()), static_cast<uint32_t>(text.size())});
  }
  static std::string peek(Stream& stream) {
    std::string text(stream.readable(), '\0');
    stream.peek(reinterpret_cast<uint8_t*>(text.data()), text.size());
    return text;
  }
  bool is_reset(Peer& peer) {
    return run_until([&] {
      char byte;
      return recv(peer.fd(), &byte, 1, MSG_DONTWAIT) < 0 && errno == ECONNRESET;
    });
  }
  void expect_exchange(Peer& peer, Stream& stream) {
    peer.send("question");
    ASSERT_TRUE(run_until([&] { return stream.readable() == 8; }));
    EXPECT_EQ(peek(stream), "question");
    write(stream, "answer");
    std::string got;
    EXPECT_TRUE(run_until([&] { return (got += peer.receive_some()) == "answer"; })) << got;
  }

  asio::io_context loop;
  FailingPort port;
  AsioClock clock;
  std::unique_ptr<DialectV2> dialect;
  Service service;  // its handles and the next go before the dialect
  ListenerHandle listener;
  mutable int connect_error = 0;
};

TEST_F(ListenerTest, a_connection_inside_becomes_a_stream_with_both_addresses) {
  listen_and_wait();
  Peer peer = connection();
  Stream& stream = *service.streams.at(0);
  EXPECT_EQ(stream.state(), Stream::State::established);
  EXPECT_EQ(stream.id() % 2, 0u);
  ASSERT_NE(stream.addresses(), nullptr);
  EXPECT_EQ(reinterpret_cast<const sockaddr_in&>(stream.addresses()->local).sin_port,
            service.address.sin_port);
  sockaddr_in own{};
  socklen_t size = sizeof own;
  getsockname(peer.fd(), reinterpret_cast<sockaddr*>(&own), &size);
  EXPECT_EQ(stream.peer().text(), "127.0.0.1:" + std::to_string(ntohs(own.sin_port)));
  expect_exchange(peer, stream);
}

TEST_F(ListenerTest, each_side_may_end_first_and_the_other_goes_on) {
  listen_and_wait();
  Peer peer = connection();
  Stream& stream = *service.streams.at(0);
  peer.send("all");
  peer.end_writing();
  ASSERT_TRUE(run_until([&] { return stream.receive_ended(); }));
  EXPECT_EQ(peek(stream), "all");
  write(stream, "received");
  stream.shutdown_write();
  std::string got;
  ASSERT_TRUE(run_until([&] {
    got += peer.receive_some();
    return peer.ended();
  }));
  EXPECT_EQ(got, "received");
  service.streams.clear();
  EXPECT_EQ(dialect->counters().streams_now, 0u);
}

TEST_F(ListenerTest, a_connection_nobody_takes_is_reset) {
  listen_and_wait();
  service.takes = false;
  Peer peer = connect();
  EXPECT_TRUE(is_reset(peer));
  EXPECT_EQ(service.offered, 1u);
  EXPECT_TRUE(run_until([&] { return dialect->counters().streams_now == 0; }));
}

TEST_F(ListenerTest, an_aborted_stream_is_a_reset_inside) {
  listen_and_wait();
  Peer peer = connection();
  service.streams.at(0)->abort(ECONNABORTED);
  EXPECT_EQ(service.streams.at(0)->take_error(), ECONNABORTED);
  EXPECT_TRUE(is_reset(peer));
}

TEST_F(ListenerTest, without_its_handle_nothing_listens_but_streams_go_on) {
  listen_and_wait();
  Peer peer = connection();
  listener.reset();
  EXPECT_TRUE(run_until([&] { return connect().fd() < 0; }));
  EXPECT_EQ(connect_error, ECONNREFUSED);
  expect_exchange(peer, *service.streams.at(0));
  service.streams.clear();
  EXPECT_TRUE(run_until([&] { return dialect->drained(); }));
}

TEST_F(ListenerTest, a_taken_address_is_told_and_asked_for_again) {
  test::Listener other;
  listen(other.port());
  ASSERT_TRUE(run_until([&] { return !service.errors.empty(); }));
  EXPECT_EQ(service.errors[0].code, EADDRINUSE);
  EXPECT_EQ(service.errors[0].text,
            "cannot listen at " + other.text() + " inside the drive: Address already in use");
  other.close();
  ASSERT_TRUE(run_until([&] { return service.listening == 1; }));
  EXPECT_EQ(ntohs(service.address.sin_port), other.port());
}

TEST_F(ListenerTest, it_comes_back_with_the_next_session) {
  listen_and_wait();
  Peer lost = connection();
  port.lose_everything();
  ASSERT_TRUE(run_until([&] { return service.listening == 2; }));
  ASSERT_EQ(service.errors.size(), 1u);
  EXPECT_EQ(service.errors[0].code, ECONNRESET);
  EXPECT_EQ(service.streams.at(0)->take_error(), ECONNRESET);
  // The drive counts from 2 again; the stream that is lost is still held.
  Peer peer = connection();
  EXPECT_NE(service.streams.at(0)->id(), service.streams.at(1)->id());
  expect_exchange(peer, *service.streams.at(1));
}

TEST_F(ListenerTest, the_drive_tells_its_counters) {
  listen_and_wait();
  Peer peer = connection();
  expect_exchange(peer, *service.streams.at(0));
  std::vector<DriveCounters> told;
  const auto ask = [&] {
    return dialect->ask_counters([&](const DriveCounters& now) { told.push_back(now); });
  };
  ASSERT_TRUE(ask());
  ASSERT_TRUE(ask());
  ASSERT_TRUE(run_until([&] { return told.size() == 2; }));
  for (const DriveCounters& now : told) {
    ASSERT_TRUE(now);
    EXPECT_EQ(now->streams_now, 1u);
    EXPECT_EQ(now->bytes_from_services, 8u);
    EXPECT_EQ(now->bytes_to_services, 6u);
  }
  ASSERT_TRUE(ask());
  ASSERT_TRUE(run_until([&] { return told.size() == 3; })) << "a further question has its own answer";
}

TEST_F(ListenerTest, counters_of_a_session_that_is_lost_do_not_come) {
  listen_and_wait();
  std::vector<DriveCounters> told;
  port.hold();
  ASSERT_TRUE(dialect->ask_counters([&](const DriveCounters& now) { told.push_back(now); }));
  port.lose_everything();
  ASSERT_TRUE(run_until([&] { return !told.empty(); }));
  EXPECT_FALSE(told[0]);
  EXPECT_TRUE(run_until([&] { return dialect->session().live(); }));
}

TEST_F(ListenerTest, a_drive_of_the_first_generation_says_that_it_cannot) {
  const auto device = Device::open(loop, "emu:?dialect=v1", {});
  ASSERT_TRUE(device);
  const auto refused = (*device)->listen({.host = "127.0.0.1", .port = 80}, 16, &service);
  test::expect_sentence(refused, "127.0.0.1:80 inside the drive: it does not offer that (v1)");
  EXPECT_EQ(refused.error().code, ENOTSUP);
}

}  // namespace
}  // namespace nvsock
