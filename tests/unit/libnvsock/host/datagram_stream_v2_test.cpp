// Datagram streams of the second generation: the host against the drive's end, on fake time and fake
// services. docs/relay-protocol.md section 7.
#include <poll.h>

#include <deque>
#include <set>

#include "libnvsock/host/dialect_v2.hpp"
#include "tests/unit/csd/v2/session_support.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;
using test::ServiceModel;

// Commands reach the drive at once; completions come when the test lets them.
class JoinedPort final : public CommandPort, public csd::CompletionQueue {
 public:
  void submit(Command& command) override {
    with_drive.insert(&command);
    drive->execute(command);
  }
  void ring() override {}
  bool stop() override { return false; }
  PortTraits traits() const override { return {}; }
  std::string describe() const override { return "joined"; }
  void post(Command& command) override {
    with_drive.erase(&command);
    posted.push(command);
  }
  void flush() override {}

  // Completes everything, and what comes of it.
  void run() {
    while (!posted.empty()) {
      while (!posted.empty()) {
        Command& command = posted.pop();
        if (hold_tx && relay_v2::function_of(command) == relay_v2::function::tx) {
          held.push_back(&command);
        } else {
          command.done(command);
        }
      }
      client_->on_batch_end();
    }
  }
  // Of the tx that were held back, the first.
  void let_go(size_t count) {
    for (; count > 0; --count) {
      Command& command = *held.front();
      held.pop_front();
      command.done(command);
    }
    client_->on_batch_end();
    run();
  }

  // A controller reset: what waits in the drive ends with an unknown outcome.
  void interrupt() {
    drive->controller_reset();
    for (Command* command : std::exchange(with_drive, {})) {
      command->completion = {.error = EINTR, .status = 0, .dw0 = 0};
      posted.push(*command);
    }
  }

  csd::SessionTable* drive = nullptr;
  std::set<Command*> with_drive;
  CommandQueue posted;
  bool hold_tx = false;
  std::deque<Command*> held;
};

struct Told final : StreamObserver {
  void on_stream_change(Stream&) override { ++changes; }
  unsigned changes = 0;
};

class DatagramStreamTest : public ::testing::Test {
 protected:
  ~DatagramStreamTest() override {
    stream.reset();
    if (!dialect) return;
    dialect->detach();
    port.run();
    dialect.reset();
  }

  void start() {
    drive_options.epoch = {1};
    start_drive();
    DialectV2Options options;
    options.window = host_window;
    dialect = std::make_unique<DialectV2>(clock, port, csd::capabilities_of(drive_options), options);
    port.run();
  }
  void start_drive() {
    drive = std::make_unique<csd::SessionTable>(clock, services, port, drive_options);
    port.drive = drive.get();
  }
  // A flow, and the service at its end.
  ServiceModel& open() {
    start();
    stream = connect();
    services.services.back()->connected();
    port.run();
    EXPECT_EQ(stream->state(), Stream::State::established);
    return service();
  }
  StreamHandle connect() {
    auto made = dialect->connect(*parse_endpoint("127.0.0.1:53", SocketType::datagram), &told);
    EXPECT_TRUE(made);
    port.run();
    return made ? std::move(*made) : nullptr;
  }
  ServiceModel& service() { return *services.services.back(); }

  int write(std::string_view datagram) {
    const int error =
        stream->write_datagram({reinterpret_cast<const uint8_t*>(datagram.data()), datagram.size()});
    port.run();
    return error;
  }
  // Everything readable, one string a datagram.
  std::vector<std::string> read_all(size_t size = 65536) {
    std::vector<std::string> all;
    for (const auto& model : services.services) model->poke();
    port.run();
    while (stream->can_read()) {
      std::string datagram(std::min(size, stream->next_read()), '\0');
      EXPECT_EQ(stream->peek(reinterpret_cast<uint8_t*>(datagram.data()), datagram.size()), datagram.size());
      stream->consume(datagram.size());
      port.run();
      all.push_back(std::move(datagram));
    }
    return all;
  }
  void pass(Clock::Duration time) {
    for (; time > 0s; time -= 5s) {
      clock.advance(5s);
      port.run();
    }
  }

  test::ManualClock clock;
  test::FakeServices services;
  csd::SessionTableOptions drive_options;
  uint32_t host_window = 256 * 1024;
  JoinedPort port;
  std::unique_ptr<csd::SessionTable> drive;
  std::unique_ptr<DialectV2> dialect;
  Told told;
  StreamHandle stream;
};

using Strings = std::vector<std::string>;

TEST_F(DatagramStreamTest, boundaries_are_kept_both_ways) {
  ServiceModel& there = open();
  EXPECT_TRUE(there.is_datagram);
  const std::string large(65507, 'x');
  const Strings datagrams{"one", "", "three", large, "", "last"};
  for (const std::string& datagram : datagrams) EXPECT_EQ(write(datagram), 0);
  EXPECT_EQ(there.sends, datagrams);
  EXPECT_EQ(stream->unsent(), 0u);
  EXPECT_EQ(stream->bytes_sent(), 65507u + 12);
  for (const std::string& datagram : datagrams) there.outgoing.push_back(datagram);
  EXPECT_EQ(read_all(), datagrams);
  EXPECT_EQ(stream->datagrams_received(), 6u);
}

TEST_F(DatagramStreamTest, an_empty_datagram_is_readable_and_no_end) {
  open().give("");
  port.run();
  EXPECT_TRUE(stream->can_read());
  EXPECT_EQ(stream->next_read(), 0u);
  EXPECT_TRUE(stream->poll_events() & POLLIN);
  EXPECT_FALSE(stream->receive_ended());
  stream->consume(0);
  EXPECT_FALSE(stream->can_read());
  EXPECT_FALSE(stream->poll_events() & POLLIN);
}

TEST_F(DatagramStreamTest, a_short_read_loses_the_rest_of_its_datagram_only) {
  ServiceModel& there = open();
  there.outgoing = {"first of all", "second"};
  EXPECT_EQ(read_all(5), (Strings{"first", "secon"}));
}

TEST_F(DatagramStreamTest, what_no_batch_or_window_holds_is_emsgsize) {
  open();
  EXPECT_EQ(write(std::string(65508, 'x')), EMSGSIZE);
  EXPECT_EQ(write(std::string(65507, 'x')), 0);
}

TEST_F(DatagramStreamTest, a_drive_with_small_batches_takes_small_datagrams) {
  drive_options.max_batch = 4096;
  ServiceModel& there = open();
  EXPECT_EQ(write(std::string(4096 - 24 - 16 + 1, 'x')), EMSGSIZE);
  EXPECT_EQ(write(std::string(4096 - 24 - 16, 'x')), 0);
  EXPECT_EQ(there.sends.size(), 1u);
}

TEST_F(DatagramStreamTest, a_drive_with_a_small_window_takes_small_datagrams) {
  drive_options.window = 1000;
  ServiceModel& there = open();
  EXPECT_EQ(write(std::string(985, 'x')), EMSGSIZE);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(write(std::string(984, 'x')), 0) << i;
  EXPECT_EQ(there.sends.size(), 20u);
}

TEST_F(DatagramStreamTest, datagrams_wait_for_credit_whole_and_in_order) {
  ServiceModel& there = open();
  there.room = 0;
  Strings sent;
  for (char letter = 'a'; letter <= 'z'; ++letter) {
    const std::string datagram(50'000, letter);
    const int error = write(datagram);
    if (error == EAGAIN) break;
    EXPECT_EQ(error, 0);
    sent.push_back(datagram);
  }
  EXPECT_EQ(sent.size(), 25u) << "five in the drive, twenty on the host";
  EXPECT_FALSE(stream->poll_events() & POLLOUT);
  there.make_room(SIZE_MAX);
  port.run();
  EXPECT_EQ(there.sends, sent);
  EXPECT_TRUE(stream->poll_events() & POLLOUT);
  EXPECT_EQ(stream->unsent(), 0u);
}

TEST_F(DatagramStreamTest, a_reader_that_sleeps_loses_what_exceeds_its_window_and_no_more) {
  ServiceModel& there = open();
  for (int i = 0; i < 1000; ++i)
    there.outgoing.push_back(std::string(1000 - 16, static_cast<char>('a' + i % 26)));
  there.poke();
  port.run();
  EXPECT_EQ(stream->datagrams_received(), 262u);
  EXPECT_EQ(read_all().size(), 262u);
  there.outgoing = {"and on"};
  EXPECT_EQ(read_all(), Strings{"and on"});
}

TEST_F(DatagramStreamTest, a_small_window_of_ours_is_given_back_early) {
  host_window = 70'000;
  ServiceModel& there = open();
  for (int i = 0; i < 10; ++i) {
    there.outgoing = {std::string(65507, 'x')};
    EXPECT_EQ(read_all().size(), 1u) << i;
  }
}

TEST_F(DatagramStreamTest, a_port_that_refuses_is_told_once_and_the_flow_goes_on) {
  ServiceModel& there = open();
  there.fail(ECONNREFUSED);
  port.run();
  EXPECT_TRUE(stream->poll_events() & POLLERR);
  EXPECT_FALSE(stream->broken());
  EXPECT_EQ(stream->take_error(), ECONNREFUSED);
  EXPECT_EQ(stream->take_error(), 0);
  EXPECT_EQ(write("again"), 0);
  EXPECT_EQ(there.received(), "again");
  there.outgoing = {"hello"};
  EXPECT_EQ(read_all(), Strings{"hello"});
}

TEST_F(DatagramStreamTest, another_error_ends_the_flow) {
  ServiceModel& there = open();
  there.fail(EHOSTUNREACH);
  port.run();
  EXPECT_TRUE(stream->broken());
  EXPECT_EQ(stream->take_error(), EHOSTUNREACH);
  EXPECT_EQ(write("x"), EPIPE);
}

TEST_F(DatagramStreamTest, shutting_down_ends_sending_without_a_frame) {
  ServiceModel& there = open();
  stream->shutdown_write();
  port.run();
  EXPECT_EQ(write("x"), EPIPE);
  there.outgoing = {"still here"};
  EXPECT_EQ(read_all(), Strings{"still here"});
}

TEST_F(DatagramStreamTest, closing_delivers_what_was_accepted) {
  ServiceModel& there = open();
  there.room = 0;
  EXPECT_EQ(write("one"), 0);
  EXPECT_EQ(write("two"), 0);
  stream.reset();
  port.run();
  there.make_room(SIZE_MAX);
  EXPECT_EQ(there.sends, (Strings{"one", "two"}));
  EXPECT_TRUE(there.closed);
  EXPECT_EQ(dialect->counters().streams_now, 0u);
}

TEST_F(DatagramStreamTest, a_quiet_flow_leaves_the_drive_and_the_next_datagram_opens_another) {
  ServiceModel& first = open();
  EXPECT_EQ(write("before"), 0);
  const unsigned changes = told.changes;
  pass(301s + 60s);
  EXPECT_TRUE(first.closed);
  EXPECT_EQ(stream->state(), Stream::State::established);
  EXPECT_EQ(stream->error(), 0);
  EXPECT_FALSE(stream->poll_events() & (POLLERR | POLLHUP | POLLIN)) << told.changes - changes;

  EXPECT_EQ(write("one"), 0);
  EXPECT_EQ(write("two"), 0);
  ASSERT_EQ(services.services.size(), 2u);
  service().connected();
  port.run();
  EXPECT_EQ(service().sends, (Strings{"one", "two"}));
  EXPECT_EQ(stream->unsent(), 0u);
  service().outgoing = {"answer"};
  EXPECT_EQ(read_all(), Strings{"answer"});
}

TEST_F(DatagramStreamTest, datagrams_either_way_keep_a_flow) {
  ServiceModel& there = open();
  for (int i = 0; i < 4; ++i) {
    pass(295s);
    ASSERT_FALSE(there.closed) << i;
    if (i % 2 == 0) {
      EXPECT_EQ(write("x"), 0);
    } else {
      there.outgoing = {"y"};
      EXPECT_EQ(read_all(), Strings{"y"});
    }
  }
}

TEST_F(DatagramStreamTest, unread_datagrams_outlive_their_flow) {
  ServiceModel& first = open();
  first.give("unread");
  port.run();
  pass(361s);
  EXPECT_TRUE(first.closed);
  EXPECT_EQ(write("x"), 0);
  service().connected();
  port.run();
  EXPECT_EQ(read_all(), Strings{"unread"});
}

TEST_F(DatagramStreamTest, a_flow_that_cannot_be_opened_again_is_an_error_and_may_work_later) {
  open();
  pass(361s);
  EXPECT_EQ(write("lost"), 0);
  service().connected(ENETUNREACH);
  port.run();
  EXPECT_EQ(stream->take_error(), ENETUNREACH);
  EXPECT_FALSE(stream->broken());
  EXPECT_EQ(stream->unsent(), 0u);
  EXPECT_EQ(write("again"), 0);
  service().connected();
  port.run();
  EXPECT_EQ(service().sends, Strings{"again"});
}

TEST_F(DatagramStreamTest, a_flow_outlives_a_drive_that_restarts) {
  open();
  drive_options.epoch = {2};
  port.interrupt();
  start_drive();
  EXPECT_EQ(write("lost with the session"), 0);
  pass(20s);
  EXPECT_FALSE(stream->broken());
  EXPECT_EQ(write("after"), 0);
  ASSERT_EQ(services.services.size(), 2u);
  service().connected();
  port.run();
  EXPECT_EQ(service().sends, Strings{"after"});
}

TEST_F(DatagramStreamTest, a_closed_file_leaves_nothing_of_a_flow_that_sleeps) {
  open();
  pass(361s);
  stream.reset();
  port.run();
  EXPECT_EQ(dialect->counters().streams_now, 0u);
}

TEST_F(DatagramStreamTest, refused_from_the_start_is_a_failed_connection) {
  start();
  stream = connect();
  service().connected(ENETUNREACH);
  port.run();
  EXPECT_EQ(stream->state(), Stream::State::failed);
  EXPECT_EQ(stream->take_error(), ENETUNREACH);
}

TEST_F(DatagramStreamTest, a_drive_without_datagrams_says_so) {
  drive_options.features &= ~relay_v2::feature::datagrams;
  start();
  const auto made = dialect->connect(*parse_endpoint("127.0.0.1:53", SocketType::datagram), &told);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, EPROTONOSUPPORT);
  EXPECT_NE(made.error().text.find("udp/127.0.0.1:53"), std::string::npos);
}

TEST_F(DatagramStreamTest, many_datagrams_share_a_command) {
  ServiceModel& there = open();
  const uint64_t before = dialect->session().batches_sent();
  for (int i = 0; i < 1000; ++i) {
    const std::string datagram = "datagram " + std::to_string(i);
    ASSERT_EQ(stream->write_datagram({reinterpret_cast<const uint8_t*>(datagram.data()), datagram.size()}),
              0);
  }
  port.run();
  EXPECT_EQ(there.sends.size(), 1000u);
  EXPECT_EQ(there.sends.back(), "datagram 999");
  EXPECT_LT(dialect->session().batches_sent() - before, 20u);
}

// Nothing comes from the drive for those, so that it is asked for what it has taken.
TEST_F(DatagramStreamTest, openings_that_are_given_up_at_once_use_up_no_numbers) {
  start();
  for (size_t i = 0; i < 3 * relay_v2::StreamNumbers::most_waiting; ++i) {
    const StreamHandle opening = connect();
    ASSERT_EQ(opening->state(), Stream::State::connecting) << i;
    services.services.clear();
  }
}

TEST_F(DatagramStreamTest, a_flow_that_is_opened_again_does_not_count_what_is_confirmed_of_the_one_before) {
  open();
  port.hold_tx = true;
  EXPECT_EQ(write("old"), 0);
  pass(400s);  // the drive forgets the quiet flow
  EXPECT_EQ(write("newer"), 0);
  const size_t unsent = stream->unsent();
  EXPECT_EQ(unsent, 5 + relay_v2::datagram_cost);
  port.let_go(1);
  EXPECT_EQ(stream->unsent(), unsent);
  port.hold_tx = false;
  port.let_go(port.held.size());
  service().connected();
  port.run();
  EXPECT_EQ(stream->unsent(), 0u);
}

}  // namespace
}  // namespace nvsock
