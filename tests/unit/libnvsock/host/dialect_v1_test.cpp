// The first generation on the host, against a drive whose every answer is scripted: order of bytes, errors,
// bounds, and that the books balance whatever the drive does.
#include "libnvsock/host/dialect_v1.hpp"

#include <poll.h>

#include <asio/steady_timer.hpp>
#include <functional>
#include <optional>
#include <set>

#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/socket/stream.hpp"
#include "tests/unit/libnvsock/scripted_port.hpp"
#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;
using test::expect_sentence;
using test::ScriptedPort;

// How the ports of this library describe themselves.
constexpr PortTraits ordered{.ordered = true,
                             .max_in_flight = 4096,
                             .max_blocking = 4096,
                             .max_abandoned = 8,
                             .max_reads_per_stream = 256};
constexpr PortTraits unordered{
    .ordered = false, .max_in_flight = 16, .max_blocking = 12, .max_abandoned = 8, .max_reads_per_stream = 1};

struct Observer final : StreamObserver {
  void on_stream_change(Stream& stream) override {
    ++told;
    if (then) then(stream);
  }
  unsigned told = 0;
  std::function<void(Stream&)> then;
};

class DialectV1Test : public ::testing::Test {
 protected:
  void SetUp() override { start(ordered); }

  // Whatever happened: once the drive has answered everything, nothing is left.
  void TearDown() override {
    port->settle();
    dialect->for_each_stream(
        [](const Stream& stream) { ADD_FAILURE() << stream.peer().text() << " is left"; });
    EXPECT_EQ(counters().in_flight_now, 0u);
    EXPECT_EQ(counters().streams_now, 0u);
    EXPECT_EQ(counters().abandoned_now, 0u);
    EXPECT_EQ(port->submitted(), counters().commands);
    EXPECT_LE(counters().max_in_flight, counters().commands);
  }

  void start(PortTraits traits, unsigned relays = 4, std::chrono::seconds connect_timeout = 1s) {
    DialectV1Options options;
    options.relays = relays;
    options.connect_timeout = connect_timeout;
    options.drain_timeout = 1s;
    options.log = [this](LogLevel, const std::string& line) { log += line + "\n"; };
    dialect.reset();
    port = std::make_unique<ScriptedPort>(traits);
    dialect = std::make_unique<DialectV1>(clock, *port, options);
  }

  Result<StreamHandle> try_connect(std::string_view text = "127.0.0.1:22") {
    return dialect->connect(*parse_endpoint(text), &observer);
  }
  // A stream whose open is with the drive.
  StreamHandle connect(std::string_view text = "127.0.0.1:22") {
    Result<StreamHandle> stream = try_connect(text);
    EXPECT_TRUE(stream) << stream.error().text;
    return stream ? std::move(*stream) : nullptr;
  }
  StreamHandle established(uint32_t descriptor = 7) {
    StreamHandle stream = connect();
    port->answer_open(port->opens().back(), descriptor);
    EXPECT_EQ(stream->state(), Stream::State::established);
    return stream;
  }

  static size_t write(Stream& stream, std::string_view bytes) {
    return stream.write(
        {{}, reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<uint32_t>(bytes.size())});
  }
  static std::string content(Stream& stream) {
    std::string bytes(stream.readable(), '\0');
    stream.peek(reinterpret_cast<uint8_t*>(bytes.data()), bytes.size());
    return bytes;
  }
  static std::string take(Stream& stream) {
    std::string bytes = content(stream);
    stream.consume(bytes.size());
    return bytes;
  }
  bool run_until(const std::function<bool()>& done) { return test::run_until(loop, done); }
  // Runs what is due and nothing else.
  void poll_loop() {
    loop.restart();
    loop.poll();
  }
  // Leaves `count` reads of a closed stream uncompleted, as a drive does after a reset by the peer.
  void abandon_stream(uint32_t descriptor) {
    established(descriptor).reset();
    for (Command* close : port->closes()) port->finish(close);
  }
  const DialectCounters& counters() const { return dialect->counters(); }

  asio::io_context loop;
  AsioClock clock{loop};
  std::unique_ptr<ScriptedPort> port;
  std::unique_ptr<DialectV1> dialect;
  Observer observer;
  std::string log;
};

// --- opening ---

TEST_F(DialectV1Test, open_carries_address_and_port_as_terminated_text) {
  connect().reset();
  std::memset(port->opens()[0]->data, 0xff, 4096);  // the page is used again
  port->refuse(port->opens()[0], status::internal_error);
  const StreamHandle stream = connect("10.1.2.3:8080");
  ASSERT_EQ(port->opens().size(), 1u);
  const Command& open = *port->opens()[0];
  const auto* fields = static_cast<const char*>(open.data);
  EXPECT_EQ(relay_v1::field_text(fields, 256), "10.1.2.3");
  EXPECT_EQ(relay_v1::field_text(fields + 256, 256), "8080");
  EXPECT_EQ(std::count(fields + 8, fields + 256, '\0'), 248) << "nothing of what was there before";
  EXPECT_EQ(open.cdw11, 0u);
  EXPECT_EQ(open.cdw13, 0u);
  EXPECT_EQ(stream->state(), Stream::State::connecting);
}

TEST_F(DialectV1Test, the_observer_hears_of_the_answer) {
  const StreamHandle stream = connect();
  EXPECT_EQ(observer.told, 0u);
  port->answer_open(port->opens()[0], 3);
  EXPECT_EQ(observer.told, 1u);
  EXPECT_EQ(stream->state(), Stream::State::established);
  EXPECT_EQ(stream->take_error(), 0);
}

TEST_F(DialectV1Test, commands_name_the_descriptor_the_drive_gave) {
  const StreamHandle stream = established(0x01020304);
  write(*stream, "x");
  ASSERT_EQ(port->writes().size(), 1u);
  EXPECT_EQ(port->writes()[0]->cdw13, 0x01020304u);
  ASSERT_FALSE(port->reads().empty());
  for (const Command* read : port->reads()) EXPECT_EQ(read->cdw13, 0x01020304u);
}

TEST_F(DialectV1Test, status_06h_is_a_refused_connection) {
  const StreamHandle stream = connect();
  port->refuse(port->opens()[0], status::internal_error);
  EXPECT_EQ(stream->state(), Stream::State::failed);
  EXPECT_EQ(stream->take_error(), ECONNREFUSED);
  EXPECT_EQ(stream->take_error(), 0) << "told once";
  EXPECT_EQ(observer.told, 1u);
  EXPECT_EQ(counters().open_failures, 1u);
  EXPECT_NE(log.find("status 006h"), std::string::npos) << log;
}

TEST_F(DialectV1Test, status_06h_is_enfile_when_all_relays_are_in_use) {
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 4; ++i) held.push_back(established(i));
  const StreamHandle fifth = connect();
  port->refuse(port->opens()[0], status::internal_error);
  EXPECT_EQ(fifth->take_error(), ENFILE);
  EXPECT_NE(log.find("all 4 relays"), std::string::npos) << log;
  // With one relay free again the same status is a refusal.
  held.pop_back();
  port->finish(port->closes()[0]);
  const StreamHandle next = connect();
  port->refuse(port->opens()[0], status::internal_error);
  EXPECT_EQ(next->take_error(), ECONNREFUSED);
}

TEST_F(DialectV1Test, a_relay_freed_behind_an_open_that_found_none_does_not_make_it_a_refusal) {
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 4; ++i) held.push_back(established(i));
  const StreamHandle fifth = connect();
  held.pop_back();
  port->finish(port->closes()[0]);  // its completion passed that of the open
  port->refuse(port->opens()[0], status::internal_error);
  EXPECT_EQ(fifth->take_error(), ENFILE);
}

TEST_F(DialectV1Test, a_vendor_status_names_the_cause) {
  for (const int code : {EHOSTUNREACH, ETIMEDOUT, ENFILE, ECONNREFUSED, EINVAL}) {
    const StreamHandle stream = connect();
    port->refuse(port->opens()[0], status::vendor_errno(code));
    EXPECT_EQ(stream->take_error(), code);
  }
  const StreamHandle stream = established();
  port->refuse(port->reads()[0], status::vendor_errno(ETIMEDOUT));
  EXPECT_EQ(stream->take_error(), ETIMEDOUT);
}

TEST_F(DialectV1Test, an_errno_of_the_command_is_that_of_the_connection) {
  const StreamHandle stream = connect();
  port->lose(port->opens()[0], EPERM);
  EXPECT_EQ(stream->take_error(), EPERM);
}

TEST_F(DialectV1Test, what_the_drive_cannot_express_is_refused_before_anything_is_sent) {
  Result<StreamHandle> ipv6 = try_connect("[::1]:22");
  expect_sentence(ipv6, "[::1]:22");
  EXPECT_EQ(ipv6.error().code, EAFNOSUPPORT);
  Result<StreamHandle> name = try_connect("db.local:22");
  expect_sentence(name, "db.local:22");
  EXPECT_EQ(name.error().code, EHOSTUNREACH);
  EXPECT_EQ(port->submitted(), 0u);
}

TEST_F(DialectV1Test, localhost_is_the_loopback_address) {
  const StreamHandle stream = connect("localhost:22");
  EXPECT_EQ(relay_v1::field_text(static_cast<const char*>(port->opens()[0]->data), 256), "127.0.0.1");
  EXPECT_EQ(stream->peer().text(), "127.0.0.1:22");
}

TEST_F(DialectV1Test, no_answer_to_an_open_is_etimedout_and_the_late_relay_is_closed) {
  const StreamHandle stream = connect();
  ASSERT_TRUE(run_until([&] { return stream->state() == Stream::State::failed; }));
  EXPECT_EQ(stream->take_error(), ETIMEDOUT);
  EXPECT_EQ(observer.told, 1u);
  port->answer_open(port->opens()[0], 5);
  EXPECT_EQ(stream->state(), Stream::State::failed);
  EXPECT_TRUE(port->reads().empty());
  ASSERT_EQ(port->closes().size(), 1u);
  EXPECT_EQ(port->closes()[0]->cdw13, 5u);
}

TEST_F(DialectV1Test, an_open_that_completes_after_the_owner_let_go_is_closed_again) {
  connect().reset();
  EXPECT_TRUE(port->closes().empty());
  EXPECT_EQ(counters().streams_now, 1u) << "it may occupy a relay";
  port->answer_open(port->opens()[0], 9);
  ASSERT_EQ(port->closes().size(), 1u);
  EXPECT_EQ(port->closes()[0]->cdw13, 9u);
  EXPECT_TRUE(port->reads().empty());
  EXPECT_EQ(observer.told, 0u);
}

TEST_F(DialectV1Test, an_abandoned_open_that_completes_after_all_is_closed_again) {
  connect().reset();
  ASSERT_TRUE(run_until([&] { return counters().abandoned_now == 1; }));
  EXPECT_EQ(counters().streams_now, 1u);
  port->answer_open(port->opens()[0], 9);
  ASSERT_EQ(port->closes().size(), 1u);
  EXPECT_EQ(port->closes()[0]->cdw13, 9u);
  EXPECT_EQ(counters().streams_now, 1u);
  port->finish(port->closes()[0]);
  EXPECT_EQ(counters().streams_now, 0u);
  EXPECT_EQ(counters().abandoned_now, 0u);
}

TEST_F(DialectV1Test, an_open_waits_for_a_close_on_its_way_when_all_relays_are_taken) {
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 4; ++i) held.push_back(established(i));
  held.erase(held.begin() + 2);
  ASSERT_EQ(port->closes().size(), 1u);
  const StreamHandle next = connect();
  EXPECT_TRUE(port->opens().empty());
  EXPECT_EQ(next->state(), Stream::State::connecting);
  port->finish(port->closes()[0]);
  ASSERT_EQ(port->opens().size(), 1u);
  port->answer_open(port->opens()[0], 2);
  EXPECT_EQ(next->state(), Stream::State::established);
}

TEST_F(DialectV1Test, waiting_opens_start_in_order_and_one_for_each_close) {
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 4; ++i) held.push_back(established(i));
  held.resize(2);
  const StreamHandle first = connect("127.0.0.1:1");
  const StreamHandle second = connect("127.0.0.1:2");
  port->finish(port->closes()[0]);
  ASSERT_EQ(port->opens().size(), 1u);
  EXPECT_EQ(relay_v1::field_text(static_cast<const char*>(port->opens()[0]->data) + 256, 256), "1");
  port->finish(port->closes()[0]);
  ASSERT_EQ(port->opens().size(), 2u);
}

TEST_F(DialectV1Test, an_open_that_waits_can_be_let_go_and_times_out) {
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 4; ++i) held.push_back(established(i));
  held.pop_back();
  connect().reset();
  const StreamHandle waiting = connect();
  ASSERT_TRUE(run_until([&] { return waiting->state() == Stream::State::failed; }));
  EXPECT_EQ(waiting->take_error(), ETIMEDOUT);
  port->finish(port->closes()[0]);
  EXPECT_TRUE(port->opens().empty()) << "nobody wants it any more";
}

TEST_F(DialectV1Test, without_a_close_on_its_way_the_drive_decides_whether_a_relay_is_free) {
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 4; ++i) held.push_back(established(i));
  const StreamHandle fifth = connect();
  ASSERT_EQ(port->opens().size(), 1u);
  port->answer_open(port->opens()[0], 4);
  EXPECT_EQ(fifth->state(), Stream::State::established);
}

TEST_F(DialectV1Test, a_port_that_can_hold_no_more_reads_takes_no_more_streams) {
  start(unordered, 64);
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 12; ++i) held.push_back(established(i));
  Result<StreamHandle> next = try_connect();
  expect_sentence(next, "all 12 connections");
  EXPECT_EQ(next.error().code, ENFILE);
  EXPECT_TRUE(port->opens().empty());
}

TEST_F(DialectV1Test, a_port_that_can_hold_no_more_reads_waits_for_a_close_on_its_way) {
  start(unordered, 64);
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 12; ++i) held.push_back(established(i));
  held.pop_back();
  const StreamHandle next = connect();
  EXPECT_TRUE(port->opens().empty());
  port->finish(port->closes()[0]);
  EXPECT_EQ(port->opens().size(), 1u);
}

TEST_F(DialectV1Test, an_open_whose_close_never_came_is_told_enfile_when_the_port_is_full) {
  start(unordered, 64, 60s);
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 12; ++i) held.push_back(established(i));
  held.pop_back();
  port->answer_read(port->reads_of(11)[0], "");
  const StreamHandle next = connect();
  observer.told = 0;
  ASSERT_TRUE(run_until([&] { return next->state() == Stream::State::failed; }));
  EXPECT_EQ(next->take_error(), ENFILE);
  EXPECT_EQ(observer.told, 1u);
}

// --- receiving ---

TEST_F(DialectV1Test, reads_whose_completions_pass_each_other_are_delivered_in_order) {
  const StreamHandle stream = established();
  const auto reads = port->reads();
  ASSERT_EQ(reads.size(), 4u);
  observer.told = 0;
  port->answer_read(reads[2], "three ");
  port->answer_read(reads[1], "two ");
  EXPECT_EQ(content(*stream), "");
  port->answer_read(reads[0], "one ");
  EXPECT_EQ(content(*stream), "one two three ");
  port->answer_read(reads[3], "four");
  EXPECT_EQ(take(*stream), "one two three four");
  EXPECT_EQ(stream->bytes_received(), 18u);
}

TEST_F(DialectV1Test, end_of_stream_is_held_back_behind_older_reads) {
  const StreamHandle stream = established();
  const auto reads = port->reads();
  port->answer_read(reads[1], "");
  EXPECT_FALSE(stream->receive_ended());
  const size_t submitted = port->submitted();
  port->answer_read(reads[0], "last words");
  EXPECT_TRUE(stream->receive_ended());
  EXPECT_EQ(take(*stream), "last words");
  EXPECT_EQ(stream->error(), 0);
  EXPECT_EQ(port->submitted(), submitted) << "no read is sent after the end";
}

TEST_F(DialectV1Test, an_error_is_held_back_behind_older_reads) {
  const StreamHandle stream = established();
  const auto reads = port->reads();
  port->refuse(reads[1], status::internal_error);
  EXPECT_EQ(stream->error(), 0);
  port->answer_read(reads[0], "before");
  EXPECT_EQ(stream->take_error(), ECONNRESET);
  EXPECT_EQ(take(*stream), "before");
}

TEST_F(DialectV1Test, reads_are_sent_again_while_the_program_consumes) {
  const StreamHandle stream = established();
  std::string sent, received;
  for (uint32_t i = 0; i < 2000; ++i) {
    ASSERT_FALSE(port->reads().empty());
    const std::string bytes = test::pattern(1 + i * 97 % relay_v1::max_read, i);
    sent += bytes;
    port->answer_read(port->reads()[0], bytes);
    received += take(*stream);
  }
  EXPECT_EQ(received, sent);
}

TEST_F(DialectV1Test, the_longest_answer_is_taken_whole) {
  const StreamHandle stream = established();
  const std::string bytes = test::pattern(4092);
  port->answer_read(port->reads()[0], bytes);
  EXPECT_EQ(take(*stream), bytes);
}

TEST_F(DialectV1Test, a_length_above_4092_ends_the_stream_and_no_byte_is_delivered) {
  for (const uint32_t length : {4093u, 4096u, 0x7fffffffu, 0xffffffffu}) {
    const StreamHandle stream = established();
    Command* read = port->reads()[0];
    relay_v1::store_u32(read->data, length);
    port->finish(read);
    EXPECT_EQ(stream->readable(), 0u);
    EXPECT_TRUE(stream->receive_ended());
    EXPECT_EQ(stream->take_error(), EPROTO);
    EXPECT_NE(log.find(std::to_string(length)), std::string::npos) << log;
    port->settle();
  }
}

TEST_F(DialectV1Test, a_reader_that_does_not_consume_stops_the_reads_at_the_window) {
  constexpr size_t window = 1024 * 1024;
  const StreamHandle stream = established();
  const std::string full(relay_v1::max_read, 'x');
  while (!port->reads().empty() && stream->readable() <= window) {
    port->batch([&] {
      for (Command* read : port->reads()) port->answer_read(read, full);
    });
  }
  EXPECT_TRUE(port->reads().empty());
  EXPECT_LT(stream->readable(), window + relay_v1::max_read);
  EXPECT_GT(stream->readable(), window / 2);
  stream->consume(100'000);
  EXPECT_FALSE(port->reads().empty()) << "room again";
}

TEST_F(DialectV1Test, the_window_counts_pages_so_that_single_bytes_cannot_fill_memory) {
  const StreamHandle stream = established();
  for (int i = 0; i < 10'000 && !port->reads().empty(); ++i) port->answer_read(port->reads()[0], "x");
  EXPECT_TRUE(port->reads().empty());
  EXPECT_LE(stream->readable(), 256u);
  stream->consume(1);
  EXPECT_EQ(port->reads().size(), 1u);
}

TEST_F(DialectV1Test, reads_held_back_behind_one_that_does_not_complete_stop_at_the_window) {
  const StreamHandle stream = established();
  for (int i = 0; i < 10'000 && port->reads().size() > 1; ++i) port->answer_read(port->reads()[1], "x");
  EXPECT_EQ(port->reads().size(), 1u);
  const uint64_t reads = counters().commands - 1;  // behind the open
  EXPECT_LE(reads, 256u);
  port->answer_read(port->reads()[0], "x");
  EXPECT_EQ(stream->readable(), reads);
}

TEST_F(DialectV1Test, reads_multiply_while_the_drive_fills_all_of_them_and_shrink_when_it_does_not) {
  const StreamHandle stream = established();
  EXPECT_EQ(port->reads().size(), 4u);
  const std::string full(relay_v1::max_read, 'x');
  for (int i = 0; i < 10; ++i) {
    port->batch([&] {
      for (Command* read : port->reads()) port->answer_read(read, full);
    });
    take(*stream);
  }
  EXPECT_EQ(port->reads().size(), 256u) << "a bulk transfer";
  for (int i = 0; i < 1000; ++i) {
    port->answer_read(port->reads()[0], "x");
    take(*stream);
  }
  EXPECT_LT(port->reads().size(), 16u) << "single answers";
  EXPECT_GE(port->reads().size(), 4u);
}

TEST_F(DialectV1Test, a_port_that_allows_one_read_gets_one) {
  start(unordered);
  const StreamHandle stream = established();
  EXPECT_EQ(port->reads().size(), 1u);
  port->answer_read(port->reads()[0], "x");
  EXPECT_EQ(port->reads().size(), 1u);
}

// In the port it could be overtaken by the close of its relay.
TEST_F(DialectV1Test, a_read_that_the_port_could_not_hand_over_at_once_is_not_sent) {
  start({.ordered = false,
         .max_in_flight = 3,
         .max_blocking = 3,
         .max_abandoned = 8,
         .max_reads_per_stream = 1});
  const StreamHandle first = established(1);
  const StreamHandle second = established(2);
  const StreamHandle third = connect();
  write(*first, "x");
  port->answer_read(port->reads_of(1)[0], "a");
  EXPECT_EQ(take(*first), "a");
  EXPECT_TRUE(port->reads_of(1).empty());
  port->finish(port->writes()[0]);
  EXPECT_EQ(port->reads_of(1).size(), 1u);
}

TEST_F(DialectV1Test, bytes_after_shutdown_read_are_dropped) {
  const StreamHandle stream = established();
  stream->shutdown_read();
  port->answer_read(port->reads()[0], "late");
  EXPECT_EQ(stream->readable(), 0u);
  EXPECT_TRUE(stream->receive_ended());
  EXPECT_EQ(write(*stream, "still"), 5u);
}

TEST_F(DialectV1Test, the_observer_is_told_once_for_a_batch) {
  const StreamHandle stream = established();
  observer.told = 0;
  port->batch([&] {
    for (Command* read : port->reads()) port->answer_read(read, "x");
  });
  EXPECT_EQ(observer.told, 1u);
  EXPECT_EQ(stream->readable(), 4u);
}

TEST_F(DialectV1Test, the_observer_may_drop_its_stream) {
  std::optional<StreamHandle> first = established(1);
  const StreamHandle second = established(2);
  observer.told = 0;
  observer.then = [&](Stream& stream) {
    if (first && &stream == first->get()) first.reset();
  };
  port->batch([&] {
    port->answer_read(port->reads_of(1)[0], "x");
    port->answer_read(port->reads_of(2)[0], "y");
  });
  EXPECT_EQ(observer.told, 2u);
  EXPECT_EQ(port->closes().size(), 1u);
  EXPECT_EQ(content(*second), "y");
}

TEST_F(DialectV1Test, the_observer_may_drop_another_stream) {
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 3; ++i) held.push_back(established(i));
  observer.then = [&](Stream&) { held.clear(); };
  port->batch([&] {
    for (uint32_t i = 0; i < 3; ++i) port->answer_read(port->reads_of(i)[0], "x");
  });
  EXPECT_EQ(port->closes().size(), 3u);
}

// --- sending ---

TEST_F(DialectV1Test, on_an_unordered_port_one_write_is_in_flight_and_small_ones_share_the_next) {
  start(unordered);
  const StreamHandle stream = established();
  for (const char* text : {"a", "bc", "def", "ghij"}) EXPECT_EQ(write(*stream, text), std::strlen(text));
  ASSERT_EQ(port->writes().size(), 1u);
  EXPECT_EQ(ScriptedPort::payload(*port->writes()[0]), "a");
  EXPECT_EQ(stream->unsent(), 10u);
  port->finish(port->writes()[0]);
  ASSERT_EQ(port->writes().size(), 1u);
  EXPECT_EQ(ScriptedPort::payload(*port->writes()[0]), "bcdefghij");
  EXPECT_EQ(stream->unsent(), 9u);
  port->finish(port->writes()[0]);
  EXPECT_TRUE(port->writes().empty());
  EXPECT_EQ(stream->unsent(), 0u);
  EXPECT_EQ(stream->bytes_sent(), 10u);
}

TEST_F(DialectV1Test, what_waits_fills_whole_commands) {
  start(unordered);
  const StreamHandle stream = established();
  std::string all;
  for (uint32_t i = 0; i < 100; ++i) {
    const std::string part = test::pattern(101, i);
    all += part;
    ASSERT_EQ(write(*stream, part), part.size());
  }
  std::string sent;
  std::vector<size_t> sizes;
  while (!port->writes().empty()) {
    ASSERT_EQ(port->writes().size(), 1u);
    sent += ScriptedPort::payload(*port->writes()[0]);
    sizes.push_back(port->writes()[0]->cdw12);
    port->finish(port->writes()[0]);
  }
  EXPECT_EQ(sent, all);
  EXPECT_EQ(sizes, (std::vector<size_t>{101, 4096, 4096, 10100 - 101 - 2 * 4096}));
}

TEST_F(DialectV1Test, on_an_ordered_port_several_writes_are_in_flight_in_the_order_of_their_bytes) {
  const StreamHandle stream = established();
  const std::string bytes = test::pattern(10'000);
  EXPECT_EQ(write(*stream, bytes), bytes.size());
  EXPECT_EQ(write(*stream, "tail"), 4u);
  ASSERT_EQ(port->writes().size(), 4u);
  std::string sent;
  for (const Command* command : port->writes()) sent += ScriptedPort::payload(*command);
  EXPECT_EQ(sent, bytes + "tail");
}

TEST_F(DialectV1Test, completions_of_writes_may_come_in_any_order) {
  const StreamHandle stream = established();
  write(*stream, test::pattern(10'000));
  auto writes = port->writes();
  ASSERT_EQ(writes.size(), 3u);
  port->finish(writes[2]);
  EXPECT_EQ(stream->unsent(), 8192u);
  port->finish(writes[0]);
  port->finish(writes[1]);
  EXPECT_EQ(stream->unsent(), 0u);
  EXPECT_EQ(stream->bytes_sent(), 10'000u);
  EXPECT_EQ(counters().bytes_sent, 10'000u);
}

TEST_F(DialectV1Test, a_large_page_aligned_slice_is_sent_from_where_it_lies) {
  BufferPool pool(64 * 1024, 1);
  const StreamHandle stream = established();
  {
    const BufferRef block = pool.take();
    const std::string bytes = test::pattern(40'000);
    std::memcpy(block.data(), bytes.data(), bytes.size());
    ASSERT_EQ(stream->write({block, block.data(), 40'000}), 40'000u);
    std::string sent;
    for (const Command* command : port->writes()) {
      EXPECT_EQ(command->data, block.data() + sent.size());
      sent += ScriptedPort::payload(*command);
    }
    EXPECT_EQ(sent, bytes);
  }
  EXPECT_EQ(pool.lent(), 1u) << "kept until the drive has it";
  while (!port->writes().empty()) port->finish(port->writes()[0]);
  EXPECT_EQ(pool.lent(), 0u);
}

TEST_F(DialectV1Test, a_slice_that_is_small_or_not_aligned_is_copied) {
  BufferPool pool(64 * 1024, 1);
  const StreamHandle stream = established();
  const BufferRef block = pool.take();
  const std::string bytes = test::pattern(40'000);
  std::memcpy(block.data(), bytes.data(), bytes.size());
  ASSERT_EQ(stream->write({block, block.data() + 1, 30'000}), 30'000u);
  ASSERT_EQ(stream->write({block, block.data() + 30'001, 100}), 100u);
  EXPECT_TRUE(block.unique());
  std::memset(block.data(), 0, block.capacity());
  std::string sent;
  for (const Command* command : port->writes()) sent += ScriptedPort::payload(*command);
  EXPECT_EQ(sent, bytes.substr(1, 30'100));
}

TEST_F(DialectV1Test, a_page_the_drive_holds_is_not_topped_up) {
  start(unordered);
  const StreamHandle stream = established();
  write(*stream, "first");
  Command* in_flight = port->writes()[0];
  write(*stream, "second");
  EXPECT_EQ(ScriptedPort::payload(*in_flight), "first");
  EXPECT_EQ(std::string_view(static_cast<char*>(in_flight->data) + 5, 6).find("second"),
            std::string_view::npos);
}

TEST_F(DialectV1Test, writes_are_accepted_up_to_the_send_limit) {
  start(unordered);
  const StreamHandle stream = established();
  const std::string bytes = test::pattern(Stream::send_limit + 5000);
  EXPECT_EQ(write(*stream, bytes), Stream::send_limit);
  EXPECT_EQ(stream->room(), 0u);
  EXPECT_EQ(write(*stream, "x"), 0u);
  EXPECT_EQ(stream->unsent(), Stream::send_limit);
  port->finish(port->writes()[0]);
  EXPECT_EQ(stream->room(), 4096u);
}

TEST_F(DialectV1Test, nothing_is_accepted_before_the_stream_is_established) {
  const StreamHandle stream = connect();
  EXPECT_EQ(stream->room(), 0u);
  EXPECT_EQ(write(*stream, "early"), 0u);
}

TEST_F(DialectV1Test, writes_in_flight_on_an_ordered_port_are_bounded) {
  BufferPool pool(Stream::send_limit, 1);
  const StreamHandle stream = established();
  std::string all;
  for (int i = 0; i < 300; ++i) {
    all += static_cast<char>('a' + i % 26);
    ASSERT_EQ(write(*stream, all.substr(all.size() - 1)), 1u);
  }
  EXPECT_EQ(port->writes().size(), 256u);
  std::string sent;
  while (!port->writes().empty()) {
    sent += ScriptedPort::payload(*port->writes()[0]);
    port->finish(port->writes()[0]);
  }
  EXPECT_EQ(sent, all);
}

// --- ends and errors ---

TEST_F(DialectV1Test, a_write_that_meets_a_controller_reset_is_econnreset_once_and_then_a_broken_pipe) {
  const StreamHandle stream = established();
  write(*stream, test::pattern(9000));
  ASSERT_EQ(port->writes().size(), 3u);
  observer.told = 0;
  port->lose(port->writes()[0], EINTR);
  EXPECT_EQ(observer.told, 1u);
  EXPECT_EQ(stream->take_error(), ECONNRESET);
  EXPECT_EQ(stream->take_error(), 0);
  EXPECT_TRUE(stream->broken());
  EXPECT_TRUE(stream->send_ended());
  EXPECT_TRUE(stream->receive_ended());
  EXPECT_EQ(write(*stream, "x"), 0u);
  EXPECT_EQ(stream->unsent(), 0u);
  while (!port->writes().empty()) port->lose(port->writes()[0], EINTR);
  while (!port->reads().empty()) port->lose(port->reads()[0], EINTR);
  EXPECT_EQ(stream->take_error(), 0) << "it is one reset";
}

TEST_F(DialectV1Test, a_failed_write_after_the_peers_end_is_epipe) {
  const StreamHandle stream = established();
  port->answer_read(port->reads()[0], "");
  write(*stream, "x");
  port->refuse(port->writes()[0], status::internal_error);
  EXPECT_EQ(stream->take_error(), EPIPE);
}

TEST_F(DialectV1Test, an_error_closes_the_relay_at_once) {
  const StreamHandle stream = established(6);
  port->refuse(port->reads()[0], status::internal_error);
  ASSERT_EQ(port->closes().size(), 1u);
  EXPECT_EQ(port->closes()[0]->cdw13, 6u);
}

TEST_F(DialectV1Test, bytes_received_before_an_error_can_still_be_read) {
  const StreamHandle stream = established();
  port->answer_read(port->reads()[0], "kept");
  port->refuse(port->reads()[0], status::internal_error);
  EXPECT_EQ(content(*stream), "kept");
}

TEST_F(DialectV1Test, a_drive_that_is_gone_ends_every_stream_and_refuses_new_ones) {
  for (const int gone : {ENODEV, ENXIO}) {
    SCOPED_TRACE(std::strerror(gone));
    start(ordered);
    const StreamHandle reading = established(1);
    const StreamHandle writing = established(2);
    const StreamHandle opening = connect();
    write(*writing, "x");
    observer.told = 0;
    port->lose(gone == ENODEV ? port->writes()[0] : port->reads_of(1)[0], gone);
    for (Stream* stream : {reading.get(), writing.get(), opening.get()}) {
      EXPECT_EQ(stream->take_error(), gone);
      EXPECT_TRUE(stream->receive_ended());
      EXPECT_TRUE(stream->send_ended());
    }
    EXPECT_EQ(opening->state(), Stream::State::failed);
    EXPECT_EQ(observer.told, 3u);
    Result<StreamHandle> later = try_connect();
    expect_sentence(later, "127.0.0.1:22");
    EXPECT_EQ(later.error().code, ENODEV);
    while (port->pending() > 0) {
      ASSERT_TRUE(
          port->opens().size() + port->closes().size() + port->reads().size() + port->writes().size() > 0);
      port->lose(!port->opens().empty()    ? port->opens()[0]
                 : !port->closes().empty() ? port->closes()[0]
                 : !port->reads().empty()  ? port->reads()[0]
                                           : port->writes()[0],
                 gone);
    }
    EXPECT_EQ(counters().in_flight_now, 0u);
    EXPECT_EQ(counters().streams_now, 0u);
  }
}

TEST_F(DialectV1Test, a_drive_that_is_gone_when_opened_says_so) {
  const StreamHandle stream = connect();
  port->lose(port->opens()[0], ENODEV);
  EXPECT_EQ(stream->take_error(), ENODEV);
  EXPECT_EQ(try_connect().error().code, ENODEV);
}

TEST_F(DialectV1Test, an_open_that_waits_is_not_sent_to_a_drive_that_is_gone) {
  std::vector<StreamHandle> held;
  for (uint32_t i = 0; i < 4; ++i) held.push_back(established(i));
  held.pop_back();
  const StreamHandle waiting = connect();
  port->lose(port->reads_of(0)[0], ENODEV);
  EXPECT_EQ(waiting->take_error(), ENODEV);
  port->lose(port->closes()[0], ENODEV);
  EXPECT_TRUE(port->opens().empty());
}

TEST_F(DialectV1Test, queued_bytes_are_written_before_the_close_is_sent) {
  start(unordered);
  StreamHandle stream = established();
  const std::string bytes = test::pattern(10'000);
  write(*stream, bytes);
  observer.told = 0;
  stream.reset();
  std::string sent;
  while (!port->writes().empty()) {
    EXPECT_TRUE(port->closes().empty());
    sent += ScriptedPort::payload(*port->writes()[0]);
    port->finish(port->writes()[0]);
  }
  EXPECT_EQ(sent, bytes);
  EXPECT_EQ(port->closes().size(), 1u);
  EXPECT_EQ(observer.told, 0u) << "the owner let go";
}

TEST_F(DialectV1Test, bytes_that_the_drive_does_not_take_are_dropped_after_the_drain_bound) {
  start(unordered);
  StreamHandle stream = established();
  write(*stream, test::pattern(10'000));
  const auto began = std::chrono::steady_clock::now();
  stream.reset();
  poll_loop();
  EXPECT_TRUE(port->closes().empty());
  ASSERT_TRUE(run_until([&] { return !port->closes().empty(); }));
  EXPECT_GE(std::chrono::steady_clock::now() - began, 1s);
  EXPECT_EQ(port->writes().size(), 1u) << "the queue is dropped, the command in flight cannot be";
  EXPECT_NE(log.find("10000 bytes for 127.0.0.1:22 were not taken"), std::string::npos) << log;
  port->finish(port->writes()[0]);
  EXPECT_TRUE(port->writes().empty());
}

TEST_F(DialectV1Test, releasing_a_quiet_stream_closes_it_at_once) {
  established(11).reset();
  ASSERT_EQ(port->closes().size(), 1u);
  EXPECT_EQ(port->closes()[0]->cdw13, 11u);
  port->finish(port->closes()[0]);
  EXPECT_EQ(counters().streams_now, 0u) << "the relay is free as soon as the close is answered";
}

TEST_F(DialectV1Test, both_directions_ended_closes_the_relay_before_the_owner_lets_go) {
  const StreamHandle stream = established();
  stream->shutdown_write();
  EXPECT_TRUE(port->closes().empty()) << "no half-close: the peer would lose its direction too";
  port->answer_read(port->reads()[0], "more");
  EXPECT_EQ(take(*stream), "more");
  port->answer_read(port->reads()[0], "");
  EXPECT_EQ(port->closes().size(), 1u);
}

TEST_F(DialectV1Test, reads_that_fail_because_of_our_close_are_no_error) {
  const StreamHandle stream = established();
  stream->shutdown_write();
  stream->shutdown_read();
  ASSERT_EQ(port->closes().size(), 1u);
  while (!port->reads().empty()) port->refuse(port->reads()[0], status::internal_error);
  EXPECT_EQ(stream->error(), 0);
  EXPECT_FALSE(stream->broken());
}

TEST_F(DialectV1Test, shutdown_write_lets_accepted_bytes_pass_and_takes_no_more) {
  start(unordered);
  const StreamHandle stream = established();
  write(*stream, "one");
  write(*stream, "two");
  stream->shutdown_write();
  EXPECT_EQ(write(*stream, "three"), 0u);
  port->answer_read(port->reads()[0], "");
  port->finish(port->writes()[0]);
  ASSERT_EQ(port->writes().size(), 1u);
  EXPECT_EQ(ScriptedPort::payload(*port->writes()[0]), "two");
  EXPECT_TRUE(port->closes().empty());
  port->finish(port->writes()[0]);
  EXPECT_EQ(port->closes().size(), 1u);
}

TEST_F(DialectV1Test, a_close_the_drive_refuses_frees_the_relay_all_the_same) {
  established().reset();
  port->refuse(port->closes()[0], status::internal_error);
  EXPECT_EQ(counters().streams_now, 0u);
}

// --- commands the drive never completes ---

TEST_F(DialectV1Test,
       reads_that_never_complete_are_abandoned_after_a_bound_and_their_pages_left_to_the_drive) {
  abandon_stream(1);
  const auto began = std::chrono::steady_clock::now();
  const auto stuck = port->reads();
  ASSERT_EQ(stuck.size(), 4u);
  EXPECT_EQ(counters().abandoned_now, 0u);
  ASSERT_TRUE(run_until([&] { return counters().abandoned_now > 0; }));
  EXPECT_GE(std::chrono::steady_clock::now() - began, 1s);
  EXPECT_EQ(counters().abandoned_now, 4u);
  EXPECT_EQ(counters().streams_now, 0u);
  EXPECT_NE(log.find("4 commands of the connection to 127.0.0.1:22 never completed"), std::string::npos)
      << log;
  dialect->for_each_stream([](const Stream&) { ADD_FAILURE() << "its stream is still there"; });

  // The port fails the test when a page of theirs is sent again.
  const StreamHandle stream = established(2);
  for (int i = 0; i < 100; ++i) {
    port->answer_read(port->reads_of(2)[0], "x");
    write(*stream, take(*stream));
    port->finish(port->writes()[0]);
  }

  // The drive wakes up after all.
  for (size_t i = 0; i < stuck.size(); ++i) {
    port->answer_read(stuck[i], "too late");
    EXPECT_EQ(counters().abandoned_now, 3 - i);
  }
  EXPECT_EQ(stream->readable(), 0u);
}

TEST_F(DialectV1Test, reads_that_were_held_back_behind_an_abandoned_one_give_their_pages_back) {
  StreamHandle stream = established(1);
  std::set<void*> pages;
  for (Command* read : {port->reads()[1], port->reads()[2]}) {
    pages.insert(read->data);
    port->answer_read(read, "held back");
  }
  stream.reset();
  port->finish(port->closes()[0]);
  ASSERT_TRUE(run_until([&] { return counters().abandoned_now > 0; }));
  // What was given back last is used again first: by the open, then by the reads.
  stream = connect();
  pages.erase(port->opens()[0]->data);
  port->answer_open(port->opens()[0], 2);
  for (const Command* read : port->reads_of(2)) pages.erase(read->data);
  EXPECT_TRUE(pages.empty());
}

TEST_F(DialectV1Test, a_close_that_never_completes_is_abandoned_and_its_relay_stays_counted) {
  established(1).reset();
  for (Command* read : port->reads()) port->answer_read(read, "");
  Command* close = port->closes()[0];
  ASSERT_TRUE(run_until([&] { return counters().abandoned_now == 1; }));
  EXPECT_EQ(counters().streams_now, 1u);
  port->finish(close);
  EXPECT_EQ(counters().streams_now, 0u);
  EXPECT_EQ(counters().abandoned_now, 0u);
}

TEST_F(DialectV1Test, opens_do_not_wait_for_a_close_that_was_abandoned) {
  start(ordered, 1);
  established(1).reset();
  for (Command* read : port->reads()) port->answer_read(read, "");
  std::vector<StreamHandle> waiting;
  const auto began = std::chrono::steady_clock::now();
  // An attempt times out sooner than a close is given up, so one is repeated, as a program would.
  ASSERT_TRUE(run_until([&] {
    if (waiting.empty() || waiting.back()->state() == Stream::State::failed) waiting.push_back(connect());
    return !port->opens().empty();
  }));
  EXPECT_GE(std::chrono::steady_clock::now() - began, 1s);
  port->answer_open(port->opens()[0], 2);
  EXPECT_EQ(waiting.back()->state(), Stream::State::established);
}

TEST_F(DialectV1Test, too_many_abandoned_commands_refuse_new_connections_until_they_complete) {
  for (uint32_t i = 0; i < 2; ++i) abandon_stream(i);
  ASSERT_EQ(port->reads().size(), PortTraits{}.max_abandoned);
  EXPECT_TRUE(try_connect()) << "not abandoned yet";
  port->refuse(port->opens()[0], status::internal_error);
  ASSERT_TRUE(run_until([&] { return counters().abandoned_now == PortTraits{}.max_abandoned; }));
  Result<StreamHandle> refused = try_connect();
  expect_sentence(refused, "never completed 8 commands; reset the controller");
  EXPECT_EQ(refused.error().code, ENFILE);
  EXPECT_TRUE(port->opens().empty());
  port->answer_read(port->reads()[0], "");
  EXPECT_TRUE(try_connect()) << "one below the bound";
}

TEST_F(DialectV1Test, the_owner_may_hold_on_while_commands_are_abandoned) {
  const StreamHandle stream = established();
  port->refuse(port->reads()[0], status::internal_error);
  port->finish(port->closes()[0]);
  ASSERT_TRUE(run_until([&] { return counters().abandoned_now == 3; }));
  EXPECT_EQ(stream->take_error(), ECONNRESET);
  EXPECT_EQ(write(*stream, "x"), 0u);
  for (Command* read : port->reads()) port->answer_read(read, "late");
  EXPECT_EQ(stream->readable(), 0u);
}

// --- books ---

TEST_F(DialectV1Test, counters_follow_the_commands) {
  const StreamHandle stream = established();
  EXPECT_EQ(counters().opens, 1u);
  EXPECT_EQ(counters().streams_now, 1u);
  EXPECT_EQ(counters().in_flight_now, 4u);
  write(*stream, test::pattern(8192));
  EXPECT_EQ(counters().in_flight_now, 6u);
  EXPECT_EQ(counters().max_in_flight, 6u);
  EXPECT_EQ(counters().commands, 7u);
  port->finish(port->writes()[0]);
  port->answer_read(port->reads()[0], "abc");
  EXPECT_EQ(counters().in_flight_now, 5u);
  EXPECT_EQ(counters().max_in_flight, 6u);
  EXPECT_EQ(counters().bytes_sent, 4096u);
  EXPECT_EQ(counters().bytes_received, 3u);
}

TEST_F(DialectV1Test, streams_have_numbers_of_their_own) {
  const StreamHandle one = established(1);
  const StreamHandle two = established(2);
  std::vector<uint64_t> listed;
  dialect->for_each_stream([&](const Stream& stream) { listed.push_back(stream.id()); });
  std::sort(listed.begin(), listed.end());
  EXPECT_EQ(listed, (std::vector<uint64_t>{one->id(), two->id()}));
  EXPECT_NE(one->id(), two->id());
}

TEST_F(DialectV1Test, a_drive_left_with_commands_keeps_them_when_the_dialect_goes) {
  established().reset();
  const auto left = port->reads();
  ASSERT_FALSE(left.empty());
  dialect.reset();
  for (Command* read : left) std::memset(read->data, 0xff, 4096);  // as the drive may
  start(ordered);
}

// A sanitizer sees whether it touches what is gone.
TEST_F(DialectV1Test, a_deadline_that_passes_while_the_dialect_goes_is_harmless) {
  start(ordered, 4, 0s);
  asio::steady_timer earlier(loop, 0s);
  earlier.async_wait([&](const asio::error_code&) { dialect.reset(); });
  connect().reset();
  poll_loop();  // both are due: the second one's handler is queued when the first one runs
  EXPECT_EQ(dialect, nullptr);
  start(ordered);
}

// --- poll(2), compared with TCP ---

// A stream and a TCP connection that are brought to the same state.
class PollTest : public DialectV1Test {
 protected:
  void SetUp() override {
    start(unordered);
    client = listener.connect();
    server = listener.accept();
    ASSERT_TRUE(client.await_events(POLLOUT));
    stream = established();
  }
  void TearDown() override {
    stream.reset();
    DialectV1Test::TearDown();
  }
  static std::string names(short events) {
    std::string out;
    for (const auto& [bit, name] : {std::pair<int, const char*>{POLLIN, "IN "},
                                    {POLLRDNORM, "RDNORM "},
                                    {POLLRDHUP, "RDHUP "},
                                    {POLLOUT, "OUT "},
                                    {POLLWRNORM, "WRNORM "},
                                    {POLLERR, "ERR "},
                                    {POLLHUP, "HUP "}}) {
      if (events & bit) out += name;
    }
    return out;
  }
  void expect_same() { EXPECT_EQ(names(stream->poll_events()), names(client.poll_events())); }
  // SO_ERROR of both.
  void take_errors(int expected) {
    int code = 0;
    socklen_t size = sizeof code;
    getsockopt(client.fd(), SOL_SOCKET, SO_ERROR, &code, &size);
    EXPECT_EQ(code, expected);
    EXPECT_EQ(stream->take_error(), expected);
  }

  test::Listener listener;
  test::Peer client, server;
  StreamHandle stream;
};

TEST_F(PollTest, established) {
  expect_same();
  EXPECT_EQ(stream->poll_events(), POLLOUT | POLLWRNORM);
}

TEST_F(PollTest, connecting) {
  test::Listener full(0);
  std::vector<test::Peer> attempts;  // until one gets no answer
  const auto unanswered = [&] { return !attempts.empty() && attempts.back().poll_events() == 0; };
  for (int i = 0; i < 16 && !unanswered(); ++i) attempts.push_back(full.connect());
  ASSERT_TRUE(unanswered());
  client = std::move(attempts.back());
  stream = connect();
  expect_same();
  EXPECT_EQ(stream->poll_events(), 0);
}

TEST_F(PollTest, refused) {
  listener.close();
  client = listener.connect();
  ASSERT_TRUE(client.await_events(POLLOUT));
  stream = connect();
  port->refuse(port->opens()[0], status::internal_error);
  expect_same();
  take_errors(ECONNREFUSED);
  expect_same();
}

TEST_F(PollTest, readable) {
  server.send("x");
  ASSERT_TRUE(client.await_events(POLLIN));
  port->answer_read(port->reads()[0], "x");
  expect_same();
}

TEST_F(PollTest, full) {
  const std::string block(65536, 'x');
  while (::send(client.fd(), block.data(), block.size(), MSG_DONTWAIT) > 0) continue;
  write(*stream, std::string(Stream::send_limit, 'x'));
  expect_same();
  EXPECT_EQ(stream->poll_events(), 0);
}

TEST_F(PollTest, peer_ended_its_direction) {
  server.end_writing();
  ASSERT_TRUE(client.await_events(POLLRDHUP));
  port->answer_read(port->reads()[0], "");
  expect_same();
}

TEST_F(PollTest, shut_down_for_writing) {
  client.end_writing();
  stream->shutdown_write();
  expect_same();
}

TEST_F(PollTest, shut_down_for_reading) {
  shutdown(client.fd(), SHUT_RD);
  stream->shutdown_read();
  expect_same();
}

TEST_F(PollTest, shut_down_in_both_directions) {
  shutdown(client.fd(), SHUT_RDWR);
  stream->shutdown_read();
  stream->shutdown_write();
  expect_same();
}

TEST_F(PollTest, both_ends_ended) {
  server.end_writing();
  client.end_writing();
  ASSERT_TRUE(client.await_events(POLLHUP));
  stream->shutdown_write();
  port->answer_read(port->reads()[0], "");
  expect_same();
}

TEST_F(PollTest, reset_by_the_peer) {
  server.reset();
  ASSERT_TRUE(client.await_events(POLLERR));
  port->refuse(port->reads()[0], status::internal_error);
  expect_same();
  take_errors(ECONNRESET);
  expect_same();
}

TEST_F(PollTest, room_is_told_when_a_third_of_the_queue_is_free) {
  write(*stream, std::string(Stream::send_limit, 'x'));
  while (stream->room() < Stream::send_limit / 3) {
    EXPECT_EQ(stream->poll_events(), 0) << stream->room();
    port->finish(port->writes()[0]);
  }
  EXPECT_EQ(stream->poll_events(), POLLOUT | POLLWRNORM);
}

}  // namespace
}  // namespace nvsock
