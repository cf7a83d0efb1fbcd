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
  void start(bool second_generation) {
    DriveOptions options;
    options.firmware = second_generation ? Firmware::second : Firmware::fixed;
    auto opened = open_emulated_port(loop, {.drive = options, .faults = {}});
    ASSERT_TRUE(opened);
    port = std::move(*opened);
  }
  V2Command& make(uint8_t opcode, uint32_t cdw10, uint32_t cdw11, uint32_t cdw12) {
    V2Command& command = *commands.emplace_back(std::make_unique<V2Command>());
    command.opcode = opcode;
    command.cdw10 = cdw10;
    command.cdw11 = cdw11;
    command.cdw12 = cdw12;
    command.buffer = pool.take();
    std::memset(command.buffer.data(), 0xa5, relay_v2::max_batch);
    command.data = command.buffer.data();
    command.data_length = cdw12;
    command.done = [](Command& done) { static_cast<V2Command&>(done).completed = true; };
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
    V2Command& command = run(make(relay_v2::opcode::to_host, 0, relay_v2::capabilities_cdw11, page_size));
    return relay_v2::parse_capabilities({command.buffer.data(), page_size});
  }
  V2Command& rx(uint32_t handle, uint32_t sequence) {
    V2Command& command = make(relay_v2::opcode::to_host, relay_v2::function::rx, handle, relay_v2::max_batch);
    command.cdw13 = 10'000;
    command.cdw14 = sequence;
    return command;
  }

  asio::io_context loop;
  BufferPool pool{relay_v2::max_batch, 8};
  std::deque<std::unique_ptr<V2Command>> commands;
  std::unique_ptr<CommandPort> port;
};

TEST_F(DriveV2Test, a_first_generation_drive_answers_zeros) {
  start(false);
  V2Command& command = run(make(relay_v2::opcode::to_host, 0, relay_v2::capabilities_cdw11, page_size));
  EXPECT_EQ(command.completion.status, status::success);
  EXPECT_EQ(std::count(command.buffer.data(), command.buffer.data() + page_size, 0), page_size);
  EXPECT_EQ(run(make(relay_v2::opcode::to_drive, relay_v2::function::attach, 0, page_size)).completion.status,
            status::invalid_field);
}

TEST_F(DriveV2Test, a_drive_of_both_generations_still_answers_the_first) {
  start(true);
  EXPECT_TRUE(capabilities());
  V2Command& command = run(make(opcode::relay_v1, relay_v1::function::identify, 0, page_size));
  EXPECT_EQ(relay_v1::field_text(reinterpret_cast<char*>(command.buffer.data()), page_size),
            relay_v1::identify_text);
}

TEST_F(DriveV2Test, each_start_is_another_epoch) {
  start(true);
  const auto first = capabilities();
  start(true);
  const auto second = capabilities();
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->epoch, second->epoch);
}

TEST_F(DriveV2Test, bytes_go_to_a_real_service_and_come_back) {
  start(true);
  test::Listener listener;
  const auto told = capabilities();
  ASSERT_TRUE(told);
  V2Command& attach = make(relay_v2::opcode::to_drive, relay_v2::function::attach, 0, 64);
  encode(relay_v2::SessionRequest{.resume = false, .id = {1}, .epoch = told->epoch},
         {attach.buffer.data(), 64});
  const uint32_t handle = run(attach).completion.dw0;
  ASSERT_NE(handle, 0u);

  V2Command& open = make(relay_v2::opcode::to_drive, relay_v2::function::tx, handle, relay_v2::max_batch);
  relay_v2::BatchWriter writer({open.buffer.data(), relay_v2::max_batch});
  const relay_v2::Target target{
      .type = {SocketType::stream}, .family = {}, .port = listener.port(), .node = "127.0.0.1"};
  encode(target, writer.append(FrameType::open, 1, 1 << 20, encoded_size(target)));
  open.cdw12 = open.data_length = writer.finish(1);
  open.cdw14 = 1;
  V2Command& opened = submit(rx(handle, 1));
  EXPECT_EQ(run(open).completion.dw0, 2u);
  ASSERT_TRUE(await(opened));
  auto batch =
      relay_v2::Batch::parse({opened.buffer.data(), opened.completion.dw0}, 1, relay_v2::Batch::From::drive);
  ASSERT_TRUE(batch);
  EXPECT_EQ(batch->next()->type, FrameType::opened);

  test::Peer peer = listener.accept();
  V2Command& data = make(relay_v2::opcode::to_drive, relay_v2::function::tx, handle, relay_v2::max_batch);
  relay_v2::BatchWriter more({data.buffer.data(), relay_v2::max_batch});
  const uint8_t word[] = {'p', 'i', 'n', 'g'};
  more.append({.type = FrameType::data, .stream = 1, .value = 0, .payload = word});
  data.cdw12 = data.data_length = more.finish(2);
  data.cdw14 = 2;
  EXPECT_TRUE(run(data).completion.ok());
  char into[10];
  ASSERT_EQ(recv(peer.fd(), into, sizeof into, 0), 4);
  V2Command& answer = submit(rx(handle, 2));
  ASSERT_EQ(send(peer.fd(), into, 4, 0), 4);
  ASSERT_TRUE(await(answer));
  batch =
      relay_v2::Batch::parse({answer.buffer.data(), answer.completion.dw0}, 2, relay_v2::Batch::From::drive);
  ASSERT_TRUE(batch);
  const auto frame = batch->next();
  EXPECT_EQ(frame->type, FrameType::data);
  EXPECT_TRUE(std::ranges::equal(frame->payload, word));

  V2Command& pending = submit(rx(handle, 3));
  port->stop();
  EXPECT_FALSE(pending.completed);
}

}  // namespace
}  // namespace nvsock
