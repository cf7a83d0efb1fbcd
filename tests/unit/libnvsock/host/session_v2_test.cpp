// A session of the second generation against a drive that does not behave. What one that does may do is the
// simulation's matter.
#include "libnvsock/host/session_v2.hpp"

#include <gtest/gtest.h>

#include "tests/sim/virtual_clock.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;

// Answers everything with success after `delay`, and every receive with nothing.
class HastyDrive final : public CommandPort {
 public:
  explicit HastyDrive(sim::VirtualClock& clock) : clock_(clock) {}

  void submit(Command& command) override {
    const bool receive = relay_v2::function_of(command) == relay_v2::function::rx;
    receives += receive;
    if (relay_v2::function_of(command) == relay_v2::function::capabilities)
      encode(relay_v2::Capabilities{}, {static_cast<uint8_t*>(command.data), command.data_length});
    if (receive && taken) {
      relay_v2::BatchWriter batch({static_cast<uint8_t*>(command.data), command.data_length});
      batch.append(relay_v2::FrameType::window, 1, 1, 0);
      answer = batch.finish(relay_v2::parse_call(command).sequence, *std::exchange(taken, {}));
    }
    if (relay_v2::function_of(command) == relay_v2::function::attach)
      attached_with =
          *relay_v2::parse_session_request({static_cast<const uint8_t*>(command.data), command.data_length});
    clock_.after(receive ? delay : 10us, [&command, bytes = receive ? std::exchange(answer, 0) : 0, this] {
      command.completion = {.status = status::success, .dw0 = bytes};
      command.done(command);
      if (at_batch_end) at_batch_end();
    });
  }
  void ring() override {}
  bool stop() override { return true; }
  PortTraits traits() const override { return {.max_in_flight = 16, .max_blocking = 12}; }
  std::string describe() const override { return "hasty drive"; }

  std::function<void()> at_batch_end;
  Clock::Duration delay = 10us;  // of receives
  unsigned receives = 0;
  uint32_t answer = 0;            // bytes of a batch, for the next receive
  std::optional<uint64_t> taken;  // of the host's batches: the next receive brings a batch that says so
  relay_v2::SessionRequest attached_with;

 private:
  sim::VirtualClock& clock_;
};

struct Owner final : SessionV2::Owner {
  void fill(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>&) override {
    if (to_send > 0 && to_send-- > 0) batch.append(relay_v2::FrameType::window, 1, 1, 0);
  }
  void on_sent(const SessionV2::Sent&) override {}
  void on_taken(uint64_t batch) override { taken.push_back(batch); }
  bool on_frame(const relay_v2::Frame&, const BufferRef&) override { return true; }
  void on_session_lost(int) override { ++lost; }
  void on_session_live() override {}
  void on_command(bool) override {}
  void on_link_message(const std::string& text) override { messages.push_back(text); }

  std::vector<std::string> messages;
  std::vector<uint64_t> taken;
  unsigned to_send = 0;  // batches
  unsigned lost = 0;
};

class SessionV2Test : public ::testing::Test {
 protected:
  SessionV2Test() {
    drive.at_batch_end = [this] { session.pump(); };
    session.start();
  }
  void run(Clock::Duration time) {
    bool over = false;
    clock.after(time, [&] { over = true; });
    while (!over && clock.step()) continue;
  }

  sim::VirtualClock clock;
  HastyDrive drive{clock};
  Owner owner;
  SessionV2 session{clock, drive, {.lease_s = 30, .vendor = {}}, {.handle = 7, .secret = {9}}, owner};
};

TEST_F(SessionV2Test, a_drive_that_answers_at_once_with_nothing_is_asked_ever_less_often) {
  run(60s);
  EXPECT_LT(drive.receives, 200u);
  EXPECT_GT(drive.receives, 100u) << "the session must not be without a command for long";
  EXPECT_EQ(session.link_name(), "live, but the drive answers at once with nothing");
  ASSERT_EQ(owner.messages.size(), 1u) << "said once";
  EXPECT_TRUE(session.live());
}

TEST_F(SessionV2Test, it_is_asked_as_usual_once_it_waits) {
  run(60s);
  drive.delay = 10s;  // as long as it is allowed to
  run(60s);
  EXPECT_EQ(session.link_name(), "live");
  drive.receives = 0;
  run(60s);
  EXPECT_NEAR(drive.receives, 6, 1);
  EXPECT_EQ(owner.lost, 0u);
}

TEST_F(SessionV2Test, a_session_after_one_that_is_lost_has_another_handle_and_another_secret) {
  run(1ms);
  const relay_v2::SessionRequest first = drive.attached_with;
  EXPECT_EQ(first.key.handle, 7u);
  EXPECT_EQ(first.features, relay_v2::feature::all);
  drive.answer = 8;  // no batch has so few bytes
  run(2s);
  EXPECT_EQ(owner.lost, 1u);
  EXPECT_TRUE(session.live());
  EXPECT_FALSE(drive.attached_with.resume);
  EXPECT_NE(drive.attached_with.key.handle, first.key.handle);
  EXPECT_FALSE(relay_v2::equal_secrets(drive.attached_with.key.secret, first.key.secret));
}

TEST_F(SessionV2Test, what_the_drive_has_taken_is_told_as_it_gets_more) {
  owner.to_send = 3;
  run(1ms);
  for (const uint64_t taken : {1, 1, 3}) {
    drive.taken = taken;
    run(1s);
  }
  EXPECT_EQ(owner.taken, (std::vector<uint64_t>{1, 3}));
  EXPECT_EQ(owner.lost, 0u);
}

TEST_F(SessionV2Test, a_drive_that_has_taken_what_was_never_sent_has_lost_the_session) {
  owner.to_send = 3;
  run(1ms);
  drive.taken = 4;
  run(1s);
  EXPECT_TRUE(owner.taken.empty());
  EXPECT_EQ(owner.lost, 1u);
}

TEST_F(SessionV2Test, so_has_one_that_gives_back_what_it_has_taken) {
  owner.to_send = 3;
  run(1ms);
  for (const uint64_t taken : {3, 2}) {
    drive.taken = taken;
    run(1s);
  }
  EXPECT_EQ(owner.lost, 1u);
}

TEST_F(SessionV2Test, a_few_hasty_answers_change_nothing) {
  drive.receives = 0;
  while (drive.receives < 8) ASSERT_TRUE(clock.step());
  EXPECT_LT(clock.now() - Clock::TimePoint{}, 1ms);
  EXPECT_TRUE(owner.messages.empty());
  EXPECT_EQ(session.link_name(), "live");
}

}  // namespace
}  // namespace nvsock
