// The software CSD with both generations, behind its port and on real sockets.
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "libnvsock/base/buffer.hpp"
#include "libnvsock/port/emulated_port.hpp"
#include "libnvsock/relay/v1.hpp"
#include "libnvsock/relay/v2.hpp"
#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using csd::DriveOptions;
using csd::Firmware;
using relay_v2::FrameType;

struct V2Command : Command {
  BufferRef buffer;
  bool completed = false;
};

class DriveV2Test : public ::testing::Test {
 protected:
  void start(Firmware firmware = Firmware::second) {
    DriveOptions options;
    options.firmware = firmware;
    auto opened = open_emulated_port(loop, {.drive = options, .faults = {}});
    ASSERT_TRUE(opened);
    port = std::move(*opened);
  }
  V2Command& make(const relay_v2::Call& call, uint32_t size) {
    V2Command& command = *commands.emplace_back(std::make_unique<V2Command>());
    command.buffer = pool.take();
    std::memset(command.buffer.data(), 0xa5, relay_v2::max_batch);
    command.data = command.buffer.data();
    command.data_length = size;
    encode(call, command);
    command.done = [](Command& done) { static_cast<V2Command&>(done).completed = true; };
    return command;
  }
  V2Command& probe() { return run(make({.function = relay_v2::function::capabilities}, page_size)); }
  V2Command& tx(uint32_t sequence, relay_v2::BatchWriter& writer, V2Command& command) {
    command.data_length = writer.finish(sequence, 0);
    encode(relay_v2::Call{.function = relay_v2::function::tx, .handle = handle, .sequence = sequence},
           command);
    return command;
  }
  V2Command& submit(V2Command& command) {
    port->submit(command);
    port->ring();
    return command;
  }
  V2Command& run(V2Command& command) {
    submit(command);
    EXPECT_TRUE(await(command));
    return command;
  }
  bool await(const V2Command& command) {
    return test::run_until(loop, [&] { return command.completed; });
  }
  std::optional<relay_v2::Capabilities> capabilities() {
    return relay_v2::parse_capabilities({probe().buffer.data(), page_size});
  }
  V2Command& rx(uint32_t sequence) {
    return make(
        {.function = relay_v2::function::rx, .handle = handle, .sequence = sequence, .wait_ms = 10'000},
        relay_v2::max_batch);
  }
  uint8_t vendor_command_format() {
    V2Command& command = make({}, page_size);
    command.opcode = opcode::identify;
    command.cdw10 = 1;  // CNS 01h: the controller
    EXPECT_TRUE(run(command).completion.ok());
    return command.buffer.data()[264];  // AVSCC
  }

  static constexpr uint64_t handle = 0x123456789abcdef0;
  asio::io_context loop;
  BufferPool pool{relay_v2::max_batch, 8};
  std::deque<std::unique_ptr<V2Command>> commands;
  std::unique_ptr<CommandPort> port;
};

// Its CDW10 is no function of the first generation, whatever else the command says.
TEST_F(DriveV2Test, the_probe_does_nothing_to_a_first_generation_drive) {
  for (const Firmware firmware : {Firmware::shipped, Firmware::fixed}) {
    start(firmware);
    V2Command& command = probe();
    EXPECT_EQ(command.completion.status, status::invalid_field);
    EXPECT_FALSE(relay_v2::parse_capabilities({command.buffer.data(), page_size}));
    test::Listener listener;
    V2Command& open = make({}, page_size);
    open.opcode = opcode::relay_v1;
    open.cdw10 = relay_v1::function::open;
    open.cdw12 = 0;
    const std::string port_text = std::to_string(listener.port());
    std::memset(open.buffer.data(), 0, page_size);
    std::memcpy(open.buffer.data(), "127.0.0.1", 9);
    std::memcpy(open.buffer.data() + relay_v1::node_size, port_text.data(), port_text.size());
    EXPECT_TRUE(run(open).completion.ok()) << "and it goes on as before";
  }
}

TEST_F(DriveV2Test, only_a_drive_of_the_second_generation_says_that_its_vendor_commands_tell_their_lengths) {
  start(Firmware::fixed);
  EXPECT_EQ(vendor_command_format(), 0);
  start(Firmware::second);
  EXPECT_EQ(vendor_command_format(), 1);
}

TEST_F(DriveV2Test, a_drive_of_both_generations_still_answers_the_first) {
  start();
  EXPECT_TRUE(capabilities());
  V2Command& command = make({}, page_size);
  command.opcode = opcode::relay_v1;
  command.cdw10 = relay_v1::function::identify;
  run(command);
  EXPECT_EQ(relay_v1::field_text(reinterpret_cast<char*>(command.buffer.data()), page_size),
            relay_v1::identify_text);
}

TEST_F(DriveV2Test, each_start_is_another_epoch) {
  start();
  const auto first = capabilities();
  start();
  const auto second = capabilities();
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->epoch, second->epoch);
}

TEST_F(DriveV2Test, bytes_go_to_a_real_service_and_come_back) {
  start();
  test::Listener listener;
  const auto told = capabilities();
  ASSERT_TRUE(told);
  V2Command& attach = make({.function = relay_v2::function::attach}, relay_v2::session_request_size);
  encode(relay_v2::SessionRequest{.epoch = told->epoch, .key = {.handle = handle}},
         {attach.buffer.data(), 64});
  ASSERT_TRUE(run(attach).completion.ok());

  V2Command& open = make({}, relay_v2::max_batch);
  relay_v2::BatchWriter writer({open.buffer.data(), relay_v2::max_batch});
  const relay_v2::Target target{
      .type = {SocketType::stream}, .family = {}, .port = listener.port(), .node = "127.0.0.1"};
  encode(target, writer.append(FrameType::open, 1, 1 << 20, encoded_size(target)));
  tx(1, writer, open);
  V2Command& opened = submit(rx(1));
  EXPECT_EQ(run(open).completion.dw0, 2u);
  ASSERT_TRUE(await(opened));
  auto batch =
      relay_v2::Batch::parse({opened.buffer.data(), opened.completion.dw0}, 1, relay_v2::Batch::From::drive);
  ASSERT_TRUE(batch);
  EXPECT_EQ(batch->next()->type, FrameType::opened);

  test::Peer peer = listener.accept();
  V2Command& data = make({}, relay_v2::max_batch);
  relay_v2::BatchWriter more({data.buffer.data(), relay_v2::max_batch});
  const uint8_t word[] = {'p', 'i', 'n', 'g'};
  more.append({.type = FrameType::data, .stream = 1, .value = 0, .payload = word});
  EXPECT_TRUE(run(tx(2, more, data)).completion.ok());
  char into[10];
  ASSERT_EQ(recv(peer.fd(), into, sizeof into, 0), 4);
  V2Command& answer = submit(rx(2));
  ASSERT_EQ(send(peer.fd(), into, 4, 0), 4);
  ASSERT_TRUE(await(answer));
  batch =
      relay_v2::Batch::parse({answer.buffer.data(), answer.completion.dw0}, 2, relay_v2::Batch::From::drive);
  ASSERT_TRUE(batch);
  const auto frame = batch->next();
  EXPECT_EQ(frame->type, FrameType::data);
  EXPECT_TRUE(std::ranges::equal(frame->payload, word));

  V2Command& pending = submit(rx(3));
  port->stop();
  EXPECT_FALSE(pending.completed);
}

}  // namespace
}  // namespace nvsock
