// The drive's end of the second-generation protocol, command by command, on fake time and fake services.
// docs/relay-protocol.md; sections named are its.
#include "csd/v2/session.hpp"

#include <cerrno>

#include "tests/unit/csd/v2/session_support.hpp"

namespace nvsock {
namespace {

using relay_v2::FrameType;
using test::DriveV2Command;
using test::Frames;
using test::Seen;
using test::ServiceModel;
using namespace std::chrono_literals;

class SessionTest : public test::SessionFixture {
 protected:
  void SetUp() override { start_session(); }

  static const Seen* find(const std::vector<Seen>& frames, FrameType type, uint32_t stream) {
    const auto found = std::ranges::find_if(
        frames, [&](const Seen& frame) { return frame.type == type && frame.stream == stream; });
    return found == frames.end() ? nullptr : &*found;
  }
  static std::string data_of(const std::vector<Seen>& frames, uint32_t stream) {
    std::string all;
    for (const Seen& frame : frames) {
      if (frame.type == FrameType::data && frame.stream == stream) all += frame.payload;
    }
    return all;
  }
  // The batch ends the session with EPROTO, and it is gone.
  void expect_violation(Frames frames) {
    EXPECT_EQ(tx(next_tx, frames).error(), EPROTO);
    EXPECT_EQ(tx(next_tx, frames).error(), ESTALE);
    EXPECT_EQ(table->sessions(), 0u);
  }
};

// --- sections 2 and 3 ---

TEST_F(SessionTest, capability_page_tells_the_options) {
  DriveV2Command& command = make({.function = relay_v2::function::capabilities}, 4096);
  EXPECT_EQ(run(command).completion.dw0, relay_v2::capability_bytes);
  const auto told = relay_v2::parse_capabilities(command.bytes);
  ASSERT_TRUE(told);
  EXPECT_EQ(told->epoch, epoch);
  EXPECT_EQ(told->max_streams, 16384u);
  EXPECT_EQ(told->tx_window, 8);
  EXPECT_EQ(told->rx_window, 8);
  EXPECT_EQ(told->lease_s, 30u);
  EXPECT_EQ(told->vendor, "nvsock csd");
}

TEST_F(SessionTest, first_generation_commands_are_not_handled) {
  for (const uint32_t first : {0, 64, 128, 129}) {
    DriveV2Command& command = make({.function = relay_v2::function::detach, .handle = handle}, 4096);
    command.cdw10 = first;
    command.cdw12 = first == 0 ? 0 : command.cdw12;
    EXPECT_FALSE(csd::SessionTable::handles(command)) << first;
  }
}

TEST_F(SessionTest, a_function_that_is_unknown_or_of_the_other_direction_is_not_handled) {
  for (uint8_t function = 0; function < 8; ++function) {
    DriveV2Command& command = make({.function = function, .handle = handle}, 0);
    const bool known = function >= 1 && function <= 5;
    const uint8_t right = command.opcode;
    for (command.opcode = 0xBE; command.opcode < 0xC4; ++command.opcode)
      EXPECT_EQ(csd::SessionTable::handles(command), known && command.opcode == right) << int{function};
  }
}

TEST_F(SessionTest, attach_sent_again_succeeds_and_makes_no_other_session) {
  EXPECT_EQ(attach(1).error(), 0);
  EXPECT_EQ(attach(1, true).error(), 0);
  EXPECT_EQ(table->sessions(), 1u);
  EXPECT_EQ(attach(2).error(), 0);
  EXPECT_EQ(table->sessions(), 2u);
}

TEST_F(SessionTest, without_its_secret_a_session_is_neither_resumed_nor_attached_to) {
  for (size_t i = 0; i < secret.size(); ++i) {
    for (const bool resume : {false, true}) {
      relay_v2::SessionRequest guess{
          .resume = resume, .epoch = epoch, .key = {.handle = 1, .secret = secret}};
      guess.key.secret[i] ^= 0x80;
      EXPECT_EQ(attach(guess).error(), ESTALE) << i;
    }
  }
  EXPECT_EQ(table->sessions(), 1u);
  EXPECT_EQ(attach(1, true).error(), 0);
}

TEST_F(SessionTest, a_session_of_another_host_does_not_exist) {
  ServiceModel& service = open();
  service.give("for nobody else");
  DriveV2Command& waiting = rx(next_rx + 1, 5s, 1);
  for (const csd::HostName& other :
       {csd::HostName{.id = {}, .nqn = "thief"}, csd::HostName{.id = {1}, .nqn = ""}}) {
    host = other;
    EXPECT_EQ(attach(handle, true).error(), ESTALE) << "though it knows the secret";
    EXPECT_EQ(tx(next_tx, Frames().data(1, "injected")).error(), ESTALE);
    EXPECT_EQ(rx(next_rx, 0ms).error(), ESTALE);
    EXPECT_EQ(detach(handle).error(), 0) << "as of any that it does not have";
  }
  host = {};
  EXPECT_TRUE(waiting.pending());
  EXPECT_EQ(data_of(seen(rx(next_rx, 0ms)), 1), "for nobody else");
  send(Frames().data(1, "mine"));
  EXPECT_EQ(service.received(), "mine");
}

TEST_F(SessionTest, two_hosts_may_choose_the_same_handle) {
  ServiceModel& service = open();
  host.nqn = "other";
  EXPECT_EQ(attach(handle).error(), 0);
  EXPECT_EQ(table->sessions(), 2u);
  EXPECT_EQ(tx(1, Frames().open(1)).error(), 0);
  EXPECT_EQ(detach(handle).error(), 0);
  host = {};
  EXPECT_FALSE(service.closed);
  send(Frames().data(1, "still here"));
  EXPECT_EQ(service.received(), "still here");
}

TEST_F(SessionTest, the_hosts_that_have_sessions_are_told) {
  host.nqn = "other";
  attach(5);
  std::string names;
  table->for_each_host([&](const csd::HostName& name) { names += "<" + name.nqn + ">"; });
  EXPECT_EQ(names, "<><other>");
}

TEST_F(SessionTest, a_host_that_may_not_attach_is_told_that_there_is_no_room) {
  options.may_attach = [](const csd::HostName& name) { return name.nqn != "greedy"; };
  restart();
  host.nqn = "greedy";
  EXPECT_EQ(attach(1).error(), ENOMEM);
  host = {};
  EXPECT_EQ(attach(1).error(), 0);
}

TEST_F(SessionTest, what_belongs_to_a_feature_that_is_not_in_force_is_a_violation) {
  const auto attach_with = [&](uint32_t features) {
    attach(relay_v2::SessionRequest{.features = features, .epoch = epoch, .key = {.handle = ++handle}});
  };
  detach(handle);
  attach_with(~relay_v2::feature::listeners);
  expect_violation(Frames().listen(1, 1));
  attach_with(~relay_v2::feature::datagrams);
  expect_violation(Frames().open_datagram(1));
  attach_with(~0u);
  EXPECT_EQ(tx(1, Frames().listen(1, 1).open_datagram(3)).error(), 0) << "bits that nobody knows are ignored";
}

TEST_F(SessionTest, resume_of_no_session_is_stale) {
  EXPECT_EQ(attach(9, true).error(), ESTALE);
}

TEST_F(SessionTest, another_epoch_is_stale) {
  EXPECT_EQ(attach(2, false, {9}).error(), ESTALE);
  EXPECT_EQ(attach(1, true, {9}).error(), ESTALE);
}

TEST_F(SessionTest, attach_refuses_versions_and_bytes_it_does_not_know) {
  for (const uint16_t version : {uint16_t{2}, uint16_t{4}}) {
    EXPECT_EQ(
        attach(relay_v2::SessionRequest{.version = version, .epoch = epoch, .key = {.handle = 7}}).error(),
        EPROTONOSUPPORT);
  }
  EXPECT_EQ(attach(relay_v2::SessionRequest{.epoch = epoch, .key = {.handle = 0}}).error(), EINVAL);
  EXPECT_EQ(run(make({.function = relay_v2::function::attach}, 64)).error(), EINVAL);
  EXPECT_EQ(run(make({.function = relay_v2::function::attach}, 0)).error(), EINVAL);
}

TEST_F(SessionTest, a_full_table_ends_no_session) {
  for (uint64_t to = 2; to <= 4; ++to) EXPECT_EQ(attach(to).error(), 0);
  EXPECT_EQ(attach(5).error(), ENOMEM);
  EXPECT_EQ(attach(1, true).error(), 0);
}

TEST_F(SessionTest, a_late_copy_of_an_attach_begins_no_ended_session_anew) {
  detach(handle);
  EXPECT_EQ(attach(1).error(), ESTALE);
  for (uint64_t to = 2; to <= 16; ++to) detach(attached(to));
  EXPECT_EQ(attach(1).error(), ESTALE) << "15 have ended since";
  EXPECT_EQ(attach(17).error(), 0);
}

TEST_F(SessionTest, what_a_host_ends_makes_the_drive_forget_nothing_of_another) {
  detach(handle);
  host.nqn = "busy";
  for (uint64_t to = 1; to <= 100; ++to) detach(attached(to));
  host = {};
  EXPECT_EQ(attach(1).error(), ESTALE);
}

TEST_F(SessionTest, detach_ends_waiting_commands_and_streams) {
  ServiceModel& service = open();
  DriveV2Command& waiting = rx(next_rx);
  EXPECT_TRUE(waiting.pending());
  EXPECT_EQ(detach(handle).completion.status, status::success);
  EXPECT_EQ(waiting.error(), ESTALE);
  EXPECT_TRUE(service.closed);
  EXPECT_FALSE(service.reset);
  EXPECT_EQ(detach(handle).completion.status, status::success);
  EXPECT_EQ(rx(next_rx).error(), ESTALE);
}

TEST_F(SessionTest, a_length_that_is_not_the_transports_is_invalid) {
  for (const uint32_t told : {0u, 1023u, 1025u, UINT32_MAX, 0x40000400u}) {
    DriveV2Command& command =
        make({.function = relay_v2::function::rx, .handle = handle, .sequence = 1}, 4096);
    command.cdw10 = told;
    EXPECT_EQ(run(command).error(), EINVAL) << told;
  }
  DriveV2Command& metadata =
      make({.function = relay_v2::function::rx, .handle = handle, .sequence = 1}, 4096);
  metadata.cdw11 = 1;
  EXPECT_EQ(run(metadata).error(), EINVAL);
}

// --- section 5.1 ---

TEST_F(SessionTest, a_batch_sent_again_takes_effect_once) {
  ServiceModel& service = open();
  const uint64_t sequence = next_tx;
  send(Frames().data(1, "once"));
  const DriveV2Command& again = tx(sequence, Frames().data(1, "once"));
  EXPECT_EQ(again.completion.status, status::success);
  EXPECT_EQ(again.completion.dw0, sequence + 1);
  EXPECT_EQ(service.received(), "once");
}

TEST_F(SessionTest, batches_ahead_are_held_and_applied_in_order) {
  ServiceModel& service = open();
  const uint64_t s = next_tx;
  EXPECT_EQ(tx(s + 2, Frames().data(1, "c")).completion.dw0, s);
  EXPECT_EQ(tx(s + 1, Frames().data(1, "b")).completion.dw0, s);
  EXPECT_EQ(tx(s + 1, Frames().data(1, "x")).completion.status, status::success) << "replaces nothing";
  EXPECT_EQ(service.received(), "");
  EXPECT_EQ(tx(s, Frames().data(1, "a")).completion.dw0, s + 3);
  EXPECT_EQ(service.received(), "abc");
}

TEST_F(SessionTest, batches_beyond_the_window_are_to_come_again) {
  EXPECT_EQ(tx(9, Frames().open(1)).error(), EAGAIN);
  EXPECT_EQ(tx(UINT64_MAX, Frames().open(1)).error(), EAGAIN);
  EXPECT_EQ(tx(8, Frames().open(1)).error(), 0);
  EXPECT_EQ(tx(0, Frames().open(1)).error(), EINVAL);
}

TEST_F(SessionTest, no_frame_of_a_malformed_batch_takes_effect) {
  ServiceModel& service = open();
  auto bytes = Frames().data(1, "evil").window(1, 5).batch(next_tx);
  bytes[16] = 3;  // a frame more than there is
  EXPECT_EQ(tx_bytes(next_tx, bytes).error(), EPROTO);
  EXPECT_EQ(service.received(), "");
  EXPECT_TRUE(service.closed);
  EXPECT_TRUE(service.reset);
  EXPECT_EQ(tx(next_tx, Frames().data(1, "more")).error(), ESTALE);
}

TEST_F(SessionTest, a_malformed_batch_ahead_of_its_turn_ends_the_session_too) {
  EXPECT_EQ(tx_bytes(3, std::vector<uint8_t>(64)).error(), EPROTO);
  EXPECT_EQ(table->sessions(), 0u);
}

TEST_F(SessionTest, a_violation_ends_waiting_commands) {
  DriveV2Command& waiting = rx(1);
  EXPECT_EQ(tx_bytes(1, std::vector<uint8_t>(24)).error(), EPROTO);
  EXPECT_EQ(waiting.error(), ESTALE);
}

TEST_F(SessionTest, bytes_at_random_hurt_nobody) {
  uint32_t state = 1;
  for (int round = 0; round < 3000; ++round) {
    auto bytes = Frames().open(1).open_datagram(3).data(1, "some bytes").fin(1).reset(3).batch(1);
    for (int flips = 0; flips < 3; ++flips) {
      state = state * 1664525 + 1013904223;
      bytes[(state >> 8) % bytes.size()] = static_cast<uint8_t>(state >> 24);
    }
    tx_bytes(1, bytes);
    rx(1, 0ms);
    detach(handle);
    handle = attached(handle + 1);
    commands.clear();
  }
}

// --- section 5.2 ---

TEST_F(SessionTest, rx_waits_and_is_empty_at_its_end) {
  DriveV2Command& command = rx(1, 5s);
  clock.advance(4999ms);
  EXPECT_TRUE(command.pending());
  clock.advance(1ms);
  EXPECT_EQ(command.completed, 1u);
  EXPECT_EQ(command.completion.status, status::success);
  EXPECT_EQ(command.completion.dw0, 0u);
  send(Frames().open(1));
  services.services[0]->connected();
  EXPECT_EQ(seen(rx(1)).size(), 1u) << "an empty answer uses up no sequence";
}

TEST_F(SessionTest, rx_completes_as_soon_as_there_is_a_frame) {
  ServiceModel& service = open();
  DriveV2Command& command = rx(next_rx);
  EXPECT_TRUE(command.pending());
  service.give("hello");
  EXPECT_EQ(data_of(seen(command), 1), "hello");
}

TEST_F(SessionTest, rx_asked_again_brings_the_same_bytes) {
  ServiceModel& service = open();
  const DriveV2Command& first = rx(next_rx);
  service.give("hello");
  service.give("later");
  DriveV2Command& again = rx(next_rx);
  EXPECT_EQ(again.completed, 1u);
  ASSERT_EQ(again.completion.dw0, first.completion.dw0);
  EXPECT_TRUE(
      std::equal(first.bytes.begin(), first.bytes.begin() + first.completion.dw0, again.bytes.begin()));
  EXPECT_EQ(data_of(seen(rx(next_rx + 1)), 1), "later");
}

TEST_F(SessionTest, pipelined_rx_are_filled_oldest_first) {
  ServiceModel& service = open();
  DriveV2Command& second = rx(next_rx + 1, 5s, 1);
  DriveV2Command& first = rx(next_rx);
  service.give("1");
  EXPECT_EQ(data_of(seen(first), 1), "1");
  EXPECT_TRUE(second.pending());
  service.give("2");
  EXPECT_EQ(data_of(seen(second), 1), "2");
}

TEST_F(SessionTest, rx_of_the_same_sequence_takes_the_place_of_the_older) {
  DriveV2Command& older = rx(1);
  DriveV2Command& newer = rx(1);
  EXPECT_EQ(older.completed, 1u);
  EXPECT_EQ(older.completion.dw0, 0u);
  EXPECT_TRUE(newer.pending());
}

TEST_F(SessionTest, acknowledged_batches_are_gone) {
  ServiceModel& service = open();
  const uint64_t s = next_rx;
  service.give("a");
  rx(s, 0ms);
  EXPECT_EQ(rx(s + 1, 0ms, 0).completion.status, status::success);
  EXPECT_EQ(rx(s, 0ms).error(), EINVAL);
}

TEST_F(SessionTest, rx_beyond_the_window_is_invalid) {
  EXPECT_EQ(rx(9, 0ms, 8).error(), EINVAL);
  EXPECT_EQ(rx(8, 0ms, 7).error(), 0);
  EXPECT_EQ(rx(5, 0ms, 0).error(), EINVAL) << "acknowledges what was never made";
  EXPECT_EQ(rx(0, 0ms).error(), EINVAL);
  EXPECT_EQ(rx(UINT64_MAX, 0ms, 255).error(), EINVAL);
}

TEST_F(SessionTest, unacknowledged_batches_fill_the_window) {
  ServiceModel& service = open();
  const uint64_t s = next_rx;
  for (uint32_t i = 0; i < 8; ++i) {
    service.give("x");
    EXPECT_EQ(data_of(seen(rx(s + i, 0ms, i)), 1), "x") << i;
  }
  service.give("y");
  EXPECT_EQ(rx(s + 8, 0ms, 8).error(), EINVAL);
  EXPECT_EQ(data_of(seen(rx(s + 8, 0ms, 7)), 1), "y");
}

TEST_F(SessionTest, rx_buffers_below_the_least_batch_are_invalid) {
  EXPECT_EQ(rx(1, 0ms, 0, 4092).error(), EINVAL);
}

TEST_F(SessionTest, a_kept_batch_needs_a_buffer_that_holds_it) {
  ServiceModel& service = open();
  service.give(std::string(10'000, 'x'));
  EXPECT_GT(rx(next_rx).completion.dw0, 10'000u);
  EXPECT_EQ(rx(next_rx, 0ms, 0, 4096).error(), EINVAL);
}

// --- section 6 ---

TEST_F(SessionTest, the_commands_of_one_host_are_forgotten_and_no_others) {
  const DriveV2Command& stays = rx(1);
  const DriveV2Command& goes = rx(2, 5s, 1);
  table->forget_commands([&](const Command& command) { return &command == &goes; });
  clock.advance(6s);
  EXPECT_EQ(stays.completed, 1u);
  EXPECT_TRUE(goes.pending());
}

TEST_F(SessionTest, a_controller_reset_leaves_streams_alone) {
  ServiceModel& service = open();
  DriveV2Command& lost = rx(next_rx);
  table->controller_reset();
  clock.advance(10s);
  EXPECT_TRUE(lost.pending());
  EXPECT_EQ(attach(1, true).error(), 0);
  service.give("still here");
  EXPECT_EQ(data_of(fetch(), 1), "still here");
  EXPECT_TRUE(lost.pending());
}

TEST_F(SessionTest, the_lease_ends_a_session_that_no_command_names) {
  ServiceModel& service = open();
  clock.advance(29s);
  EXPECT_EQ(table->sessions(), 1u);
  clock.advance(2s);
  EXPECT_EQ(table->sessions(), 0u);
  EXPECT_TRUE(service.closed);
  EXPECT_TRUE(service.reset);
  EXPECT_EQ(attach(1, true).error(), ESTALE);
}

TEST_F(SessionTest, a_wait_longer_than_the_lease_keeps_the_session) {
  options.lease = 3s;
  restart();
  start_session();
  const DriveV2Command& command = rx(1, 10s);
  clock.advance(9s);
  EXPECT_EQ(table->sessions(), 1u);
  EXPECT_TRUE(command.pending());
}

TEST_F(SessionTest, waiting_commands_keep_the_session) {
  for (int i = 0; i < 20; ++i) {
    DriveV2Command& command = rx(1, 10s);
    clock.advance(10s);
    EXPECT_EQ(command.completed, 1u);
  }
  EXPECT_EQ(table->sessions(), 1u);
  clock.advance(31s);
  EXPECT_EQ(table->sessions(), 0u);
}

// --- completions that end the session they came from ---

class SessionEndsTest : public SessionTest {
 protected:
  // An rx whose completion detaches the session at once, as a host may.
  DriveV2Command& rx_that_detaches(std::chrono::milliseconds wait) {
    static SessionEndsTest* self;
    self = this;
    DriveV2Command& command = rx(next_rx, wait);
    command.done = [](Command& done) {
      ++static_cast<DriveV2Command&>(done).completed;
      self->detach(self->handle);
    };
    return command;
  }
};

TEST_F(SessionEndsTest, from_a_service) {
  ServiceModel& service = open();
  DriveV2Command& command = rx_that_detaches(5s);
  service.give("bytes");
  EXPECT_EQ(command.completed, 1u);
  EXPECT_TRUE(service.closed);
}

TEST_F(SessionEndsTest, from_a_connection) {
  send(Frames().open(1));
  rx_that_detaches(5s);
  services.services[0]->connected();
  EXPECT_TRUE(services.services[0]->closed);
}

TEST_F(SessionEndsTest, from_room_in_a_service) {
  ServiceModel& service = open();
  service.room = 0;
  send(Frames().data(1, "abc"));
  rx_that_detaches(5s);
  service.make_room(100);
  EXPECT_TRUE(service.closed);
}

TEST_F(SessionEndsTest, from_a_listener) {
  send(Frames().listen(1, 1));
  fetch();
  rx_that_detaches(5s);
  EXPECT_TRUE(services.come_in().closed);
  EXPECT_TRUE(services.listeners[0]->closed);
}

TEST_F(SessionEndsTest, from_the_end_of_a_wait) {
  DriveV2Command& command = rx_that_detaches(1s);
  clock.advance(2s);
  EXPECT_EQ(command.completed, 1u);
  EXPECT_EQ(table->sessions(), 0u);
}

// --- section 7: opening ---

TEST_F(SessionTest, open_is_answered_when_the_service_is_there) {
  send(Frames().open(1));
  EXPECT_TRUE(fetch().empty());
  services.services[0]->connected();
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].type, FrameType::opened);
  EXPECT_EQ(frames[0].value, options.window);
}

TEST_F(SessionTest, open_that_fails_tells_its_errno) {
  send(Frames().open(1));
  services.services[0]->connected(ECONNREFUSED);
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].type, FrameType::reset);
  EXPECT_EQ(frames[0].value, static_cast<uint32_t>(ECONNREFUSED));
  send(Frames().window(1, 5).reset(1));  // ignored
}

TEST_F(SessionTest, opens_beyond_the_limit_are_refused) {
  options.max_streams = 2;
  restart();
  start_session();
  send(Frames().open(1).open(3).open(5));
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].stream, 5u);
  EXPECT_EQ(frames[0].value, static_cast<uint32_t>(ENFILE));
  EXPECT_EQ(services.services.size(), 2u);
  send(Frames().reset(1, ECONNABORTED).open(7));
  EXPECT_EQ(services.services.size(), 3u);
}

TEST_F(SessionTest, numbers_that_are_free_may_be_opened_in_any_order) {
  send(Frames().open(5).open(3).open(1));
  EXPECT_EQ(services.services.size(), 3u);
}
TEST_F(SessionTest, a_number_in_use_is_a_violation) {
  open();
  expect_violation(Frames().open(1));
}
TEST_F(SessionTest, a_number_that_is_refused_and_not_told_is_in_use) {
  services.listen_error = EADDRINUSE;
  send(Frames().listen(1, 1));
  expect_violation(Frames().open(1));
}
TEST_F(SessionTest, a_number_is_used_again_when_its_stream_is_closed) {
  for (int round = 0; round < 3; ++round) {
    send(Frames().open(1));
    ServiceModel& service = *services.services.back();
    service.connected();
    fetch();
    send(Frames().data(1, "of this one"));
    EXPECT_EQ(service.received(), "of this one");
    if (round == 0) send(Frames().reset(1));
    if (round == 1) send(Frames().reset(1, ECONNRESET));
    if (round == 2) {
      send(Frames().fin(1));
      service.end();
      EXPECT_TRUE(find(fetch(), FrameType::fin, 1));
    }
    EXPECT_TRUE(service.closed);
    EXPECT_TRUE(fetch().empty());
  }
}
TEST_F(SessionTest, what_a_closed_stream_has_left_to_deliver_goes_on_beside_the_new_one) {
  ServiceModel& first = open();
  first.room = 0;
  send(Frames().data(1, "old").reset(1).open(1));
  ServiceModel& second = *services.services.back();
  second.connected();
  fetch();
  send(Frames().data(1, "new"));
  first.make_room(100);
  EXPECT_EQ(first.received(), "old");
  EXPECT_EQ(second.received(), "new");
}
TEST_F(SessionTest, a_refusal_that_the_host_took_back_is_not_told) {
  services.listen_error = EADDRINUSE;
  send(Frames().listen(1, 1).reset(1));
  EXPECT_TRUE(fetch().empty());
}
TEST_F(SessionTest, a_stream_that_both_have_ended_is_not_reset_any_more) {
  ServiceModel& service = open();
  service.end();
  EXPECT_TRUE(find(fetch(), FrameType::fin, 1));
  service.send_error = ECONNRESET;
  send(Frames().data(1, "in vain").fin(1));
  EXPECT_TRUE(fetch().empty()) << "its number may be another stream's by now";
  send(Frames().open(1));
}

// --- section 4: what was taken ---

TEST_F(SessionTest, batches_tell_what_was_taken) {
  open(2);
  send(Frames().window(1, 1).add(FrameType::stat, 0));
  const DriveV2Command& told = rx(next_rx, 0ms);
  ASSERT_GT(told.completion.dw0, 24u);
  EXPECT_EQ(load_le<uint32_t>(told.bytes.data() + 20), next_tx - 1);
}
TEST_F(SessionTest, a_batch_that_was_never_made_cannot_be_taken) {
  open();
  EXPECT_EQ(tx(next_tx, Frames().window(1, 1), next_rx).error(), EPROTO);
}
TEST_F(SessionTest, what_was_taken_is_not_given_back) {
  open(2);
  send(Frames().window(1, 1), next_rx - 1);
  EXPECT_EQ(tx(next_tx, Frames().window(1, 1), next_rx - 2).error(), EPROTO);
}

TEST_F(SessionTest, even_numbers_of_the_host_are_a_violation) {
  expect_violation(Frames().open(2));
}
TEST_F(SessionTest, frames_for_a_number_never_used_are_a_violation) {
  expect_violation(Frames().data(1, "x"));
}
TEST_F(SessionTest, even_numbers_never_used_are_a_violation) {
  expect_violation(Frames().reset(2));
}
TEST_F(SessionTest, data_before_opened_is_a_violation) {
  expect_violation(Frames().open(1).data(1, "x"));
}

// --- section 7: credit ---

TEST_F(SessionTest, data_beyond_the_credit_is_a_violation) {
  options.window = 10;
  restart();
  start_session();
  ServiceModel& service = open();
  service.room = 0;
  send(Frames().data(1, "0123456789"));
  expect_violation(Frames().data(1, "x"));
}

TEST_F(SessionTest, a_window_that_overflows_is_a_violation) {
  open(1, relay_v2::max_window);
  expect_violation(Frames().window(1, 1));
}

TEST_F(SessionTest, the_drive_sends_no_more_than_its_credit) {
  ServiceModel& service = open(1, 4);
  service.give("0123456789");
  EXPECT_EQ(data_of(fetch(), 1), "0123");
  EXPECT_TRUE(fetch().empty());
  DriveV2Command& waiting = rx(next_rx);
  send(Frames().window(1, 3));
  EXPECT_EQ(data_of(seen(waiting), 1), "456");
}

TEST_F(SessionTest, credit_comes_back_in_large_pieces) {
  ServiceModel& service = open();
  const std::string piece(options.window / 4, 'x');
  send(Frames().data(1, piece));
  EXPECT_TRUE(fetch().empty());
  send(Frames().data(1, piece));
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].type, FrameType::window);
  EXPECT_EQ(frames[0].value, options.window / 2);
  EXPECT_EQ(service.received().size(), options.window / 2);
}

TEST_F(SessionTest, a_service_that_keeps_up_gets_longer_runs) {
  options.window = 1000;
  options.largest_window = 4000;
  restart();
  start_session();
  ServiceModel& service = open();
  const std::string half(options.window / 2, 'x');
  const auto credit = [&] {
    const auto frames = fetch();
    return frames.empty() ? 0 : frames[0].value;
  };
  send(Frames().data(1, half));
  EXPECT_EQ(credit(), options.window / 2 + options.window) << "doubled";
  send(Frames().data(1, half + half));
  EXPECT_EQ(credit(), options.window + 2 * options.window) << "and again";
  send(Frames().data(1, half + half + half + half));
  EXPECT_EQ(credit(), 2 * options.window) << "that was the largest";
  service.room = 0;
  send(Frames().data(1, half + half));
  EXPECT_EQ(credit(), 0u);
}

TEST_F(SessionTest, a_service_that_stalls_gets_every_byte_in_order) {
  ServiceModel& service = open();
  service.room = 3;
  send(Frames().data(1, "abcdef").data(1, "ghi").fin(1));
  EXPECT_EQ(service.received(), "abc");
  EXPECT_FALSE(service.shut_down);
  service.make_room(4);
  EXPECT_EQ(service.received(), "abcdefg");
  service.make_room(100);
  EXPECT_EQ(service.received(), "abcdefghi");
  EXPECT_TRUE(service.shut_down);
  EXPECT_TRUE(fetch().empty()) << "after FIN the host needs no credit";
}

TEST_F(SessionTest, a_queue_that_ran_empty_gives_credit_back_at_once) {
  ServiceModel& service = open();
  service.room = 0;
  send(Frames().data(1, "abc"));
  EXPECT_TRUE(fetch().empty());
  service.make_room(100);
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].type, FrameType::window);
  EXPECT_EQ(frames[0].value, 3u);
}

TEST_F(SessionTest, a_stalled_stream_stalls_no_other) {
  ServiceModel& stalled = open();
  ServiceModel& other = open();
  stalled.room = 0;
  send(Frames().data(1, std::string(100'000, 'x')).data(3, "through"));
  EXPECT_EQ(other.received(), "through");
}

// --- section 7: batches are shared ---

TEST_F(SessionTest, streams_take_turns) {
  open(3);
  for (auto& service : services.services) service->give(std::string(500'000, 'x'));
  const auto first = seen(rx(next_rx, 0ms));
  const auto second = seen(rx(next_rx + 1, 0ms));
  EXPECT_EQ(data_of(first, 1).size(), 64u * 1024);
  EXPECT_GT(data_of(first, 3).size(), 60u * 1024);
  EXPECT_EQ(data_of(first, 5).size(), 0u);
  EXPECT_EQ(data_of(second, 5).size(), 64u * 1024);
}

TEST_F(SessionTest, a_stream_alone_fills_the_batch) {
  open().give(std::string(200'000, 'x'));
  const auto frames = seen(rx(next_rx));
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].payload.size(),
            relay_v2::max_batch - relay_v2::batch_header_size - relay_v2::frame_header_size);
}

TEST_F(SessionTest, small_buffers_get_all_of_it_in_pieces) {
  std::string sent;
  for (int i = 0; i < 10'000; ++i) sent += std::to_string(i);
  open().give(sent);
  EXPECT_EQ(data_of(fetch(4096), 1), sent);
}

TEST_F(SessionTest, what_no_command_asks_for_stays_with_the_service) {
  ServiceModel& service = open();
  service.give("abc");
  EXPECT_EQ(service.receives, 0u);
}

// --- section 7: endings ---

TEST_F(SessionTest, fin_both_ways_closes) {
  ServiceModel& service = open();
  service.give("last");
  service.end();
  const auto frames = fetch();
  EXPECT_EQ(data_of(frames, 1), "last");
  ASSERT_TRUE(find(frames, FrameType::fin, 1));
  EXPECT_FALSE(service.closed);
  send(Frames().data(1, "bye").fin(1));
  EXPECT_EQ(service.received(), "bye");
  EXPECT_TRUE(service.shut_down);
  EXPECT_TRUE(service.closed);
  EXPECT_FALSE(service.reset);
  send(Frames().window(1, 5));  // ignored
}

TEST_F(SessionTest, the_host_may_end_first_and_still_read) {
  ServiceModel& service = open();
  send(Frames().data(1, "request").fin(1));
  EXPECT_TRUE(service.shut_down);
  service.give("answer");
  service.end();
  const auto frames = fetch();
  EXPECT_EQ(data_of(frames, 1), "answer");
  EXPECT_TRUE(find(frames, FrameType::fin, 1));
  EXPECT_TRUE(service.closed);
}

TEST_F(SessionTest, data_after_fin_is_a_violation) {
  open();
  expect_violation(Frames().fin(1).data(1, "x"));
}
TEST_F(SessionTest, fin_twice_is_a_violation) {
  open();
  expect_violation(Frames().fin(1).fin(1));
}

TEST_F(SessionTest, a_reset_by_the_service_tells_its_errno_after_its_bytes) {
  ServiceModel& service = open();
  service.give("some");
  service.fail(ECONNRESET);
  const auto frames = fetch();
  EXPECT_EQ(data_of(frames, 1), "some");
  const Seen* reset = find(frames, FrameType::reset, 1);
  ASSERT_TRUE(reset);
  EXPECT_EQ(reset->value, static_cast<uint32_t>(ECONNRESET));
  EXPECT_TRUE(service.closed);
}

TEST_F(SessionTest, a_service_that_takes_no_more_may_still_have_bytes) {
  ServiceModel& service = open();
  service.outgoing.push_back("last words");
  service.send_error = EPIPE;
  send(Frames().data(1, "x"));
  const auto frames = fetch();
  EXPECT_EQ(data_of(frames, 1), "last words");
  const Seen* reset = find(frames, FrameType::reset, 1);
  ASSERT_TRUE(reset);
  EXPECT_EQ(reset->value, static_cast<uint32_t>(ECONNRESET));
}

TEST_F(SessionTest, reset_with_an_errno_aborts_and_drops) {
  ServiceModel& service = open();
  service.room = 0;
  send(Frames().data(1, "never"));
  send(Frames().reset(1, ECONNABORTED));
  EXPECT_TRUE(service.reset);
  EXPECT_TRUE(service.closed);
  EXPECT_EQ(service.received(), "");
  EXPECT_TRUE(fetch().empty()) << "never answered";
  send(Frames().data(1, "crossed"));  // ignored
}

TEST_F(SessionTest, an_orderly_reset_delivers_first) {
  ServiceModel& service = open();
  service.room = 2;
  send(Frames().data(1, "delivered").reset(1));
  EXPECT_FALSE(service.closed);
  detach(handle);  // it is no part of the session any more
  service.make_room(100);
  EXPECT_EQ(service.received(), "delivered");
  EXPECT_TRUE(service.closed);
  EXPECT_FALSE(service.reset);
}

TEST_F(SessionTest, lingering_has_an_end) {
  ServiceModel& service = open();
  service.room = 0;
  send(Frames().data(1, "never").reset(1));
  clock.advance(29s);
  EXPECT_FALSE(service.closed);
  clock.advance(2s);
  EXPECT_TRUE(service.closed);
  EXPECT_TRUE(service.reset);
}

TEST_F(SessionTest, what_services_have_not_taken_is_counted) {
  ServiceModel& service = open();
  service.room = 2;
  send(Frames().data(1, "never"));
  EXPECT_EQ(table->delivery().waiting.bytes, 3u);
  EXPECT_EQ(table->delivery().waiting.connections, 1u);
  send(Frames().reset(1));
  EXPECT_EQ(table->delivery().waiting.bytes, 3u) << "also when it lingers";
  service.make_room(1);
  EXPECT_EQ(table->delivery().waiting.bytes, 2u);
  EXPECT_TRUE(table->delivery().given_up.none());
  clock.advance(31s);
  EXPECT_TRUE(table->delivery().waiting.none());
  EXPECT_EQ(table->delivery().given_up.bytes, 2u);
  EXPECT_EQ(table->delivery().given_up.connections, 1u);
}

TEST_F(SessionTest, the_end_of_the_drive_resets_all_but_what_lingers) {
  ServiceModel& lingering = open();
  lingering.room = 0;
  send(Frames().data(1, "late").reset(1));
  ServiceModel& busy = open();
  table->end_sessions();
  EXPECT_TRUE(busy.closed);
  EXPECT_TRUE(busy.reset);
  EXPECT_FALSE(lingering.closed);
  lingering.make_room(100);
  EXPECT_TRUE(lingering.closed);
  EXPECT_FALSE(lingering.reset);
  EXPECT_EQ(lingering.received(), "late");
}

TEST_F(SessionTest, what_lingers_is_not_given_up_for_more) {
  constexpr unsigned count = 1300;
  options.max_streams = count;
  restart();
  start_session();
  for (unsigned i = 0; i < count; ++i) {
    open().room = 0;
    send(Frames().data(next_stream - 2, std::string(1000, 'x')).reset(next_stream - 2));
  }
  for (const auto& service : services.services) {
    EXPECT_FALSE(service->closed);
    service->make_room(1000);
    EXPECT_TRUE(service->closed);
    EXPECT_FALSE(service->reset);
  }
}

TEST_F(SessionTest, with_much_left_to_deliver_no_stream_opens) {
  options.linger_bytes = 1000;
  options.linger_streams = 3;
  restart();
  start_session();
  const auto close_with = [&](size_t bytes) -> ServiceModel& {
    ServiceModel& service = open();
    service.room = 0;
    send(Frames().data(next_stream - 2, std::string(bytes, 'x')).reset(next_stream - 2));
    return service;
  };
  const auto opens = [&] {
    const size_t before = services.services.size();
    send(Frames().open(next_stream));
    next_stream += 2;
    const bool opened = services.services.size() > before;
    if (opened) {
      send(Frames().reset(next_stream - 2, ECONNRESET));
    } else {
      const auto frames = fetch();
      const Seen* const refusal = find(frames, FrameType::reset, next_stream - 2);
      EXPECT_TRUE(refusal != nullptr && refusal->value == static_cast<uint32_t>(ENOBUFS));
    }
    return opened;
  };
  ServiceModel& large = close_with(1000);
  EXPECT_FALSE(opens());
  large.make_room(999);
  EXPECT_FALSE(opens());
  large.make_room(1);
  EXPECT_TRUE(large.closed);
  EXPECT_TRUE(opens());
  close_with(1);
  close_with(1);
  ServiceModel& third = close_with(1);
  EXPECT_FALSE(opens());
  third.make_room(1);
  EXPECT_TRUE(opens());
}

TEST_F(SessionTest, what_lingers_of_one_session_is_no_other_ones_business) {
  options.linger_bytes = 1000;
  restart();
  start_session();
  open().room = 0;
  send(Frames().data(next_stream - 2, std::string(1000, 'x')).reset(next_stream - 2));
  handle = attached(2);
  next_tx = next_rx = next_stream = 1;
  open();
  EXPECT_FALSE(services.services[0]->closed);
}

TEST_F(SessionTest, nobody_attaches_while_many_ended_sessions_linger) {
  options.max_sessions = 2;
  restart();
  const auto leave_bytes = [&](uint64_t to) {
    handle = attached(to);
    next_tx = next_rx = next_stream = 1;
    open().room = 0;
    send(Frames().data(1, "some"));
    detach(handle);
  };
  leave_bytes(1);
  leave_bytes(2);
  EXPECT_EQ(attach(3).error(), ENOMEM);
  services.services[0]->make_room(100);
  EXPECT_EQ(attach(3).error(), 0);
  EXPECT_EQ(services.services[0]->received(), "some");
}

TEST_F(SessionTest, an_opening_that_is_given_up_is_closed) {
  send(Frames().open(1));
  send(Frames().reset(1));
  EXPECT_TRUE(services.services[0]->closed);
  EXPECT_TRUE(fetch().empty());
}

// --- section 7: datagrams ---

TEST_F(SessionTest, datagrams_keep_their_boundaries) {
  ServiceModel& service = open_datagram();
  send(Frames().datagram(1, "one").datagram(1, "").datagram(1, "three"));
  EXPECT_EQ(service.sends, (std::vector<std::string>{"one", "", "three"}));
  service.outgoing = {"uno", "", std::string(60'000, 'x')};
  service.poke();
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 3u);
  for (const Seen& frame : frames) EXPECT_EQ(frame.type, FrameType::datagram);
  EXPECT_EQ(frames[0].payload, "uno");
  EXPECT_EQ(frames[1].payload, "");
  EXPECT_EQ(frames[2].payload.size(), 60'000u);
}

TEST_F(SessionTest, datagrams_that_wait_keep_their_boundaries) {
  ServiceModel& service = open_datagram();
  service.room = 0;
  send(Frames().datagram(1, "one").datagram(1, "").datagram(1, "three"));
  service.make_room(100);
  EXPECT_EQ(service.sends, (std::vector<std::string>{"one", "", "three"}));
}

TEST_F(SessionTest, datagrams_without_credit_are_dropped_and_counted) {
  ServiceModel& service = open_datagram(20 + 16);
  service.outgoing = {std::string(10, 'a'), std::string(30, 'b'), "", "c"};
  service.poke();
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].payload, std::string(10, 'a'));
  send(Frames().window(1, 100).add(FrameType::stat, 0));
  const auto stat = fetch();
  ASSERT_EQ(stat.size(), 1u);
  const auto counters = relay_v2::parse_counters(
      {reinterpret_cast<const uint8_t*>(stat[0].payload.data()), stat[0].payload.size()});
  EXPECT_EQ(counters.datagrams_dropped, 3u);
  service.give("d");
  EXPECT_EQ(fetch().size(), 1u);
}

TEST_F(SessionTest, many_large_datagrams_arrive_whole_and_in_order) {
  ServiceModel& service = open_datagram();
  for (char c = 'a'; c < 'i'; ++c) service.outgoing.push_back(std::string(50'000, c));
  service.poke();
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 8u);
  for (size_t i = 0; i < frames.size(); ++i) {
    EXPECT_EQ(frames[i].payload, std::string(50'000, static_cast<char>('a' + i)));
  }
}

TEST_F(SessionTest, datagrams_larger_than_any_batch_of_the_host_are_dropped) {
  ServiceModel& service = open_datagram();
  service.outgoing = {std::string(5'000, 'x'), "small"};
  service.poke();
  const auto frames = fetch(4096);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].payload, "small");
}

TEST_F(SessionTest, an_unreachable_port_is_told_and_the_flow_goes_on) {
  ServiceModel& service = open_datagram();
  service.fail(ECONNREFUSED);
  auto frames = fetch();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].type, FrameType::reset);
  EXPECT_EQ(frames[0].value, static_cast<uint32_t>(ECONNREFUSED));
  EXPECT_FALSE(service.closed);
  service.give("back");
  EXPECT_EQ(fetch().size(), 1u);
  service.send_error = ECONNREFUSED;
  send(Frames().datagram(1, "again"));
  EXPECT_EQ(service.received(), "again") << "the error was of an earlier datagram";
  frames = fetch();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].type, FrameType::reset);
}

TEST_F(SessionTest, an_empty_datagram_costs_credit) {
  options.window = 2 * 16;
  restart();
  start_session();
  ServiceModel& service = open_datagram();
  service.room = 0;
  send(Frames().datagram(1, "").datagram(1, ""));
  expect_violation(Frames().datagram(1, ""));
}

TEST_F(SessionTest, a_flow_that_is_quiet_ends_and_only_then) {
  ServiceModel& stream = open();
  ServiceModel& busy = open_datagram();
  ServiceModel& quiet = open_datagram();
  for (int minute = 1; minute <= 5; ++minute) {
    for (int step = 0; step < 6; ++step) {
      clock.advance(10s);
      fetch();  // the session's own sign of life
    }
    send(Frames().datagram(3, "x"));
    EXPECT_FALSE(quiet.closed) << minute << " minutes";
  }
  clock.advance(29s);
  fetch();
  clock.advance(29s);
  fetch();
  clock.advance(29s);
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].type, FrameType::reset);
  EXPECT_EQ(frames[0].stream, 5u);
  EXPECT_EQ(frames[0].value, 0u);
  EXPECT_TRUE(quiet.closed);
  EXPECT_FALSE(busy.closed);
  EXPECT_FALSE(stream.closed) << "a connection may be quiet";
  send(Frames().datagram(5, "too late"));  // crossed the RESET: ignored
  EXPECT_EQ(quiet.received(), "");
}

TEST_F(SessionTest, fin_of_a_datagram_stream_is_a_violation) {
  open_datagram();
  expect_violation(Frames().fin(1));
}
TEST_F(SessionTest, data_on_a_datagram_stream_is_a_violation) {
  open_datagram();
  expect_violation(Frames().data(1, "x"));
}

// --- section 7: listeners ---

TEST_F(SessionTest, connections_made_inside_become_streams) {
  send(Frames().listen(1, 5));
  EXPECT_TRUE(find(fetch(), FrameType::listening, 1));
  ServiceModel& service = services.come_in();
  const auto frames = fetch();
  const Seen* accepted = find(frames, FrameType::accepted, 2);
  ASSERT_TRUE(accepted);
  EXPECT_EQ(accepted->value, options.window);
  EXPECT_EQ(static_cast<uint8_t>(accepted->payload[0]), 1) << "the listener";
  service.give("hello");
  EXPECT_TRUE(fetch().empty()) << "no credit yet";
  send(Frames().window(2, 100).data(2, "hi"));
  EXPECT_EQ(service.received(), "hi");
  EXPECT_EQ(data_of(fetch(), 2), "hello");
  services.come_in();
  EXPECT_TRUE(find(fetch(), FrameType::accepted, 4));
}

TEST_F(SessionTest, listen_that_fails_tells_its_errno) {
  services.listen_error = EADDRINUSE;
  send(Frames().listen(1, 5));
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].type, FrameType::reset);
  EXPECT_EQ(frames[0].value, static_cast<uint32_t>(EADDRINUSE));
}

TEST_F(SessionTest, a_listener_rests_while_its_connections_wait) {
  send(Frames().listen(1, 2));
  services.come_in();
  EXPECT_FALSE(services.listeners[0]->paused);
  services.come_in();
  EXPECT_TRUE(services.listeners[0]->paused);
  fetch();
  send(Frames().reset(2));
  EXPECT_FALSE(services.listeners[0]->paused);
}

TEST_F(SessionTest, reset_of_a_listener_leaves_its_streams) {
  send(Frames().listen(1, 5));
  ServiceModel& service = services.come_in();
  fetch();
  send(Frames().reset(1));
  EXPECT_TRUE(services.listeners[0]->closed);
  EXPECT_FALSE(service.closed);
  send(Frames().window(2, 10).data(2, "x"));
  EXPECT_EQ(service.received(), "x");
}

TEST_F(SessionTest, reset_of_a_listener_resets_connections_that_the_host_was_not_told_of) {
  send(Frames().listen(1, 5));
  fetch();
  ServiceModel& told = services.come_in();
  EXPECT_TRUE(find(fetch(), FrameType::accepted, 2));
  ServiceModel& untold = services.come_in();
  send(Frames().reset(1));
  EXPECT_TRUE(untold.closed);
  EXPECT_TRUE(untold.reset);
  EXPECT_FALSE(told.closed);
  EXPECT_TRUE(fetch().empty());
}

TEST_F(SessionTest, the_drives_numbers_are_used_again_when_the_host_has_taken_the_last_of_the_old_stream) {
  send(Frames().listen(1, 5));
  fetch();
  services.come_in();
  EXPECT_TRUE(find(fetch(), FrameType::accepted, 2));
  const uint64_t last = next_rx - 1;
  send(Frames().reset(2), last - 1);
  services.come_in();
  EXPECT_TRUE(find(fetch(), FrameType::accepted, 4)) << "a frame for the old 2 may still be on its way";
  send(Frames().reset(4), last);
  services.come_in();
  EXPECT_TRUE(find(fetch(), FrameType::accepted, 2));
}

TEST_F(SessionTest, data_for_a_listener_is_a_violation) {
  send(Frames().listen(1, 5));
  expect_violation(Frames().data(1, "x"));
}

// --- STAT ---

TEST_F(SessionTest, stat_counts) {
  ServiceModel& service = open();
  send(Frames().data(1, "12345"));
  service.give("123");
  fetch();
  clock.advance(7ms);
  send(Frames().add(FrameType::stat, 0).add(FrameType::stat, 0));
  const auto frames = fetch();
  ASSERT_EQ(frames.size(), 2u) << "each is answered";
  const auto counters = relay_v2::parse_counters(
      {reinterpret_cast<const uint8_t*>(frames[0].payload.data()), frames[0].payload.size()});
  EXPECT_EQ(counters.streams_now, 1u);
  EXPECT_EQ(counters.streams_opened, 1u);
  EXPECT_EQ(counters.bytes_to_services, 5u);
  EXPECT_EQ(counters.bytes_from_services, 3u);
  EXPECT_EQ(counters.age_ms, 7u);
  EXPECT_EQ(counters.lingering_streams, 0u);
  EXPECT_GT(counters.memory, 0u);
}

TEST_F(SessionTest, stat_counts_what_lingers) {
  const auto counters = [&] {
    send(Frames().add(FrameType::stat, 0));
    const auto frames = fetch();
    const Seen* const stat = find(frames, FrameType::stat, 0);
    return stat == nullptr ? relay_v2::Counters{}
                           : relay_v2::parse_counters({reinterpret_cast<const uint8_t*>(stat->payload.data()),
                                                       stat->payload.size()});
  };
  open().room = 0;
  send(Frames().data(1, "12345").reset(1));
  const relay_v2::Counters held = counters();
  EXPECT_EQ(held.lingering_streams, 1u);
  EXPECT_EQ(held.lingering_bytes, 5u);
  EXPECT_EQ(held.lingering_lost, 0u);
  for (int i = 0; i < 4; ++i) {
    clock.advance(10s);
    EXPECT_EQ(rx(next_rx, 0ms).error(), 0);  // a sign of life
  }
  const relay_v2::Counters gone = counters();
  EXPECT_EQ(gone.lingering_streams, 0u);
  EXPECT_EQ(gone.lingering_bytes, 0u);
  EXPECT_EQ(gone.lingering_lost, 5u);
}

TEST_F(SessionTest, a_flow_that_fails_while_it_lingers_is_gone) {
  ServiceModel& service = open_datagram();
  service.room = 0;
  send(Frames().datagram(1, "late").reset(1));
  EXPECT_EQ(table->delivery().waiting.connections, 1u);
  service.send_error = EHOSTUNREACH;
  service.make_room(100);
  EXPECT_TRUE(service.closed);
  send(Frames().add(FrameType::stat, 0));
  const auto frames = fetch();
  const Seen* const stat = find(frames, FrameType::stat, 0);
  ASSERT_TRUE(stat);
  EXPECT_EQ(
      relay_v2::parse_counters({reinterpret_cast<const uint8_t*>(stat->payload.data()), stat->payload.size()})
          .lingering_streams,
      0u);
}

// --- memory ---

TEST(SessionStreamTest, an_idle_stream_is_small) {
  EXPECT_LE(sizeof(csd::SessionStream), 512u);
}

}  // namespace
}  // namespace nvsock
