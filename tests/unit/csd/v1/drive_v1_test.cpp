// The software CSD behind its port, with commands built by hand and real sockets: what the firmware in the
// field does, what ours does better, and that no command can hurt it.
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>

#include "csd/drive.hpp"
#include "libnvsock/base/buffer.hpp"
#include "libnvsock/port/emulated_port.hpp"
#include "libnvsock/relay/v1.hpp"
#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

namespace function = relay_v1::function;
using csd::DriveOptions;
using csd::Firmware;
using test::Listener;
using test::Peer;

struct DriveCommand : Command {
  BufferRef page;
  unsigned completed = 0;  // times; anything but 1 at the end is a bug

  uint16_t answer() const { return completion.status; }
  uint8_t* bytes() const { return page.data(); }
  std::string text() const {
    return std::string(relay_v1::field_text(reinterpret_cast<char*>(bytes()), page_size));
  }
  // What a read brought. Empty: end of stream.
  std::string payload() const {
    EXPECT_EQ(answer(), status::success);
    const uint32_t size = relay_v1::load_u32(bytes());
    EXPECT_LE(size, relay_v1::max_read);
    return {reinterpret_cast<char*>(bytes()) + relay_v1::read_header, size};
  }
};

class DriveTest : public ::testing::Test {
 protected:
  void SetUp() override { start({}); }

  void start(const DriveOptions& options) {
    auto opened = open_emulated_port(loop, {.drive = options, .faults = {}});
    ASSERT_TRUE(opened);
    port = std::move(*opened);
  }
  void start_shipped() {
    start({.relays = relay_v1::shipped_relays, .netns = "", .firmware = Firmware::shipped});
  }

  DriveCommand& make(uint32_t cdw10, uint32_t cdw11 = 0, uint32_t cdw12 = 0, uint32_t cdw13 = 0) {
    DriveCommand& command = *commands.emplace_back(std::make_unique<DriveCommand>());
    command.opcode = opcode::relay_v1;
    command.cdw10 = cdw10;
    command.cdw11 = cdw11;
    command.cdw12 = cdw12;
    command.cdw13 = cdw13;
    command.page = pool.take();
    std::memset(command.page.data(), 0xa5, page_size);
    command.data = command.page.data();
    command.data_length = page_size;
    command.done = [](Command& done) { ++static_cast<DriveCommand&>(done).completed; };
    return command;
  }
  DriveCommand& make_open(std::string_view node, std::string_view service) {
    DriveCommand& command = make(function::open);
    relay_v1::encode_open(command.data, node, service);
    return command;
  }
  DriveCommand& make_write(uint32_t descriptor, std::string_view bytes) {
    DriveCommand& command =
        make(function::comm, relay_v1::comm_write, static_cast<uint32_t>(bytes.size()), descriptor);
    std::copy(bytes.begin(), bytes.end(), command.bytes());
    return command;
  }
  DriveCommand& make_read(uint32_t descriptor) {
    return make(function::comm, relay_v1::comm_read, 0, descriptor);
  }

  DriveCommand& send(DriveCommand& command) {
    port->submit(command);
    port->ring();
    return command;
  }
  // Sends and waits for the answer.
  DriveCommand& run(DriveCommand& command) {
    send(command);
    EXPECT_TRUE(await(command)) << "CDW10 " << command.cdw10 << " was not answered";
    return command;
  }
  bool await(const DriveCommand& command) {
    return run_until([&] { return command.completed > 0; });
  }
  bool run_until(const std::function<bool()>& done) { return test::run_until(loop, done); }
  // Everything that is due has happened.
  void poll_loop() {
    loop.restart();
    loop.poll();
  }

  uint32_t open(uint16_t to) {
    const DriveCommand& command = run(make_open("127.0.0.1", std::to_string(to)));
    EXPECT_EQ(command.answer(), status::success);
    return relay_v1::load_u32(command.bytes());
  }
  DriveCommand& read(uint32_t descriptor) { return run(make_read(descriptor)); }
  uint16_t write(uint32_t descriptor, std::string_view bytes) {
    return run(make_write(descriptor, bytes)).answer();
  }
  DriveCommand& close(uint32_t descriptor) { return run(make(function::close, 0, 0, descriptor)); }
  // Writes until the peer's side is full; returns the writes the drive has not answered.
  std::vector<DriveCommand*> fill(uint32_t descriptor) {
    std::vector<DriveCommand*> unanswered;
    for (int i = 0; i < 10'000 && unanswered.empty(); ++i) {
      DriveCommand& command = send(make_write(descriptor, std::string(4096, 'x')));
      poll_loop();
      if (command.completed == 0) unanswered.push_back(&command);
    }
    EXPECT_FALSE(unanswered.empty());
    return unanswered;
  }

  asio::io_context loop;
  BufferPool pool{page_size, 64};
  std::deque<std::unique_ptr<DriveCommand>> commands;  // must outlive the port
  std::unique_ptr<CommandPort> port;
};

// --- identify ---

TEST_F(DriveTest, identify_controller_tells_the_model_of_a_csd_in_the_field) {
  DriveCommand& command = make(1);
  command.opcode = opcode::identify;
  run(command);
  EXPECT_EQ(command.answer(), status::success);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(command.bytes()) + 24, 40),
            "Linux pci_epf" + std::string(27, ' '));
  EXPECT_EQ(std::string(reinterpret_cast<char*>(command.bytes()) + 4, 20), "emulated" + std::string(12, ' '));
  EXPECT_EQ(command.bytes()[77], 5) << "MDTS: 128 KiB";
  EXPECT_EQ(command.bytes()[4095], 0);
}

TEST_F(DriveTest, identify_of_anything_but_the_controller_is_an_invalid_field) {
  for (const uint32_t cns : {0u, 2u, 0x1cu}) {
    DriveCommand& command = make(cns);
    command.opcode = opcode::identify;
    EXPECT_EQ(run(command).answer(), status::invalid_field) << cns;
  }
}

TEST_F(DriveTest, identify_csd_answers_the_text_and_zeroes_for_any_other_question) {
  EXPECT_EQ(run(make(function::identify)).text(), "This device has compute");
  for (const uint32_t question : {1u, 0x80u, UINT32_MAX}) {
    const DriveCommand& command = run(make(function::identify, question));
    EXPECT_EQ(command.answer(), status::success);
    EXPECT_EQ(std::count(command.bytes(), command.bytes() + page_size, 0), 4096) << question;
  }
}

TEST_F(DriveTest, unknown_functions_are_invalid_fields) {
  for (const uint32_t number : {1u, 63u, 65u, 127u, 130u, 160u, UINT32_MAX}) {
    EXPECT_EQ(run(make(number)).answer(), status::invalid_field) << number;
  }
}

TEST_F(DriveTest, vendor_opcodes_are_told_apart_by_the_function_alone_and_others_are_invalid) {
  for (const int code : {0xc0, 0xc1, 0xc2, 0xff}) {
    DriveCommand& command = make(function::identify);
    command.opcode = static_cast<uint8_t>(code);
    EXPECT_EQ(run(command).text(), "This device has compute") << code;
  }
  for (const int code : {0x00, 0x02, 0x09, 0x80, 0xbf}) {
    DriveCommand& command = make(function::identify);
    command.opcode = static_cast<uint8_t>(code);
    EXPECT_EQ(run(command).answer(), status::invalid_opcode) << code;
  }
}

// --- open ---

TEST_F(DriveTest, open_connects) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  EXPECT_EQ(write(descriptor, "hello"), status::success);
  ASSERT_TRUE(peer.await_events(POLLIN));
  EXPECT_EQ(peer.receive_some(), "hello");
}

TEST_F(DriveTest, one_more_open_than_relays_names_the_cause) {
  start({.relays = 2, .netns = "", .firmware = Firmware::fixed});
  Listener listener;
  open(listener.port());
  open(listener.port());
  EXPECT_EQ(run(make_open("127.0.0.1", std::to_string(listener.port()))).answer(),
            status::vendor_errno(ENFILE));
}

TEST_F(DriveTest, the_fifth_open_of_a_shipped_drive_is_06h) {
  start_shipped();
  Listener listener;
  for (uint32_t i = 0; i < 4; ++i) EXPECT_EQ(open(listener.port()), i);
  DriveCommand& fifth = make_open("127.0.0.1", std::to_string(listener.port()));
  EXPECT_EQ(run(fifth).answer(), 0x006);
  close(2);
  EXPECT_EQ(open(listener.port()), 2u) << "used again at once";
}

TEST_F(DriveTest, a_refused_connection_names_the_cause_unless_shipped) {
  Listener listener;
  const std::string service = std::to_string(listener.port());
  listener.close();
  EXPECT_EQ(run(make_open("127.0.0.1", service)).answer(), status::vendor_errno(ECONNREFUSED));
  start_shipped();
  EXPECT_EQ(run(make_open("127.0.0.1", service)).answer(), 0x006);
}

TEST_F(DriveTest, failed_opens_take_no_relay) {
  start_shipped();
  Listener closed;
  closed.close();
  for (int i = 0; i < 10; ++i) run(make_open("127.0.0.1", std::to_string(closed.port())));
  for (int i = 0; i < 10; ++i) run(make_open("not an address", "22"));
  Listener listener;
  EXPECT_EQ(open(listener.port()), 0u);
}

TEST_F(DriveTest, only_a_dotted_quad_and_a_port_number_are_taken) {
  Listener listener;
  const std::string port_text = std::to_string(listener.port());
  for (const char* node : {"", "localhost", "::1", "127.1", "127.0.0.1 ", "127.0.0.256", "0x7f.0.0.1"}) {
    EXPECT_EQ(run(make_open(node, port_text)).answer(), status::vendor_errno(EINVAL)) << node;
  }
  for (const char* service : {"", "0", "65536", "ssh", "22x", " 22", "-1", "99999999999"}) {
    EXPECT_EQ(run(make_open("127.0.0.1", service)).answer(), status::vendor_errno(EINVAL)) << service;
  }
  start_shipped();
  EXPECT_EQ(run(make_open("localhost", port_text)).answer(), 0x006);
}

TEST_F(DriveTest, opens_in_one_batch_get_descriptors_of_their_own) {
  Listener listener;
  std::vector<DriveCommand*> opens;
  for (int i = 0; i < 8; ++i)
    port->submit(*opens.emplace_back(&make_open("127.0.0.1", std::to_string(listener.port()))));
  port->ring();
  std::vector<uint32_t> descriptors;
  for (DriveCommand* command : opens) {
    ASSERT_TRUE(await(*command));
    EXPECT_EQ(command->answer(), status::success);
    descriptors.push_back(relay_v1::load_u32(command->bytes()));
  }
  EXPECT_EQ(descriptors, (std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

// --- reading ---

TEST_F(DriveTest, a_read_waits_for_bytes) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  const DriveCommand& command = send(make_read(descriptor));
  poll_loop();
  EXPECT_EQ(command.completed, 0u);
  peer.send("at last");
  ASSERT_TRUE(await(command));
  EXPECT_EQ(command.payload(), "at last");
}

TEST_F(DriveTest, reads_that_wait_are_filled_together_and_in_order) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  const std::string bytes = test::pattern(10'000);
  peer.send(bytes);
  std::vector<DriveCommand*> reads;
  for (int i = 0; i < 4; ++i) port->submit(*reads.emplace_back(&make_read(descriptor)));
  port->ring();
  EXPECT_EQ(reads[0]->payload(), bytes.substr(0, 4092));
  EXPECT_EQ(reads[1]->payload(), bytes.substr(4092, 4092));
  EXPECT_EQ(reads[2]->payload(), bytes.substr(8184));
  EXPECT_EQ(reads[3]->completed, 0u);
  peer.send("next");
  ASSERT_TRUE(await(*reads[3]));
  EXPECT_EQ(reads[3]->payload(), "next");
}

TEST_F(DriveTest, reads_of_two_relays_do_not_mix) {
  Listener listener;
  const uint32_t one = open(listener.port());
  Peer peer_one = listener.accept();
  const uint32_t two = open(listener.port());
  Peer peer_two = listener.accept();
  DriveCommand& waits = send(make_read(one));
  peer_two.send("two");
  EXPECT_EQ(read(two).payload(), "two");
  EXPECT_EQ(waits.completed, 0u);
  peer_one.send("one");
  ASSERT_TRUE(await(waits));
  EXPECT_EQ(waits.payload(), "one");
}

TEST_F(DriveTest, the_peers_end_completes_all_reads_with_0_once_its_bytes_are_read) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  std::vector<DriveCommand*> reads;
  for (int i = 0; i < 3; ++i) reads.push_back(&send(make_read(descriptor)));
  peer.send("bye");
  peer.end_writing();
  ASSERT_TRUE(await(*reads[2]));
  EXPECT_EQ(reads[0]->payload(), "bye");
  EXPECT_EQ(reads[1]->payload(), "");
  EXPECT_EQ(reads[2]->payload(), "");
  EXPECT_EQ(read(descriptor).payload(), "") << "and every later one";
  EXPECT_EQ(write(descriptor, "still"), status::success);
}

TEST_F(DriveTest, the_1025th_queued_read_is_refused) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  std::vector<DriveCommand*> reads;
  for (int i = 0; i < 1024; ++i) reads.push_back(&send(make_read(descriptor)));
  EXPECT_EQ(run(make_read(descriptor)).answer(), status::internal_error);
  EXPECT_EQ(reads.back()->completed, 0u);
  peer.send("x");
  ASSERT_TRUE(await(*reads[0]));
  reads.push_back(&send(make_read(descriptor)));
  EXPECT_EQ(reads.back()->completed, 0u) << "room for one again";
  close(descriptor);
  for (const DriveCommand* command : reads) EXPECT_EQ(command->completed, 1u);
}

// --- closing ---

TEST_F(DriveTest, close_completes_waiting_reads_with_0_and_tells_the_peer) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  const DriveCommand& first = send(make_read(descriptor));
  const DriveCommand& second = send(make_read(descriptor));
  EXPECT_EQ(close(descriptor).answer(), status::success);
  EXPECT_EQ(first.completed, 1u);
  EXPECT_EQ(first.payload(), "");
  EXPECT_EQ(second.payload(), "");
  ASSERT_TRUE(peer.await_events(POLLRDHUP));
  EXPECT_EQ(peer.receive_some(), "");
  EXPECT_TRUE(peer.ended());
}

TEST_F(DriveTest, a_close_while_a_relay_connects_ends_its_open) {
  Listener listener;
  DriveCommand& open = make_open("127.0.0.1", std::to_string(listener.port()));
  DriveCommand& close = make(function::close, 0, 0, 0);
  port->submit(open);
  port->submit(close);
  port->ring();
  ASSERT_TRUE(await(close));
  ASSERT_TRUE(await(open));
  EXPECT_NE(open.answer(), status::success);
}

TEST_F(DriveTest, closing_twice_succeeds) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  EXPECT_EQ(close(descriptor).answer(), status::success);
  EXPECT_EQ(close(descriptor).answer(), status::success);
}

TEST_F(DriveTest, unknown_descriptors_can_be_closed_but_not_used) {
  for (const uint32_t descriptor : {0u, 63u, 64u, 0x7fffffffu, UINT32_MAX}) {
    EXPECT_EQ(read(descriptor).answer(), status::internal_error) << descriptor;
    EXPECT_EQ(write(descriptor, "x"), status::internal_error) << descriptor;
    EXPECT_EQ(close(descriptor).answer(), status::success) << descriptor;
  }
}

// --- writing ---

TEST_F(DriveTest, writes_of_a_batch_arrive_in_order) {
  Listener listener;
  const uint32_t one = open(listener.port());
  Peer peer_one = listener.accept();
  const uint32_t two = open(listener.port());
  Peer peer_two = listener.accept();
  std::string expected_one, expected_two;
  for (uint32_t i = 0; i < 40; ++i) {
    const std::string bytes = test::pattern(1 + i * 101 % 4096, i);
    const bool first = i % 5 < 3;
    (first ? expected_one : expected_two) += bytes;
    port->submit(make_write(first ? one : two, bytes));
  }
  port->ring();
  std::string got_one, got_two;
  ASSERT_TRUE(run_until([&] {
    got_one += peer_one.receive_some();
    got_two += peer_two.receive_some();
    return got_one.size() >= expected_one.size() && got_two.size() >= expected_two.size();
  }));
  EXPECT_EQ(got_one, expected_one);
  EXPECT_EQ(got_two, expected_two);
  for (const auto& command : commands) EXPECT_EQ(command->completed, 1u);
}

TEST_F(DriveTest, a_write_is_answered_when_the_peer_has_room_and_no_byte_is_lost) {
  Listener listener(16, 4096);
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  fill(descriptor);
  const size_t writes = commands.size() - 1;  // the first command is the open
  for (const char* text : {"tail", "end"}) send(make_write(descriptor, text));
  std::string got;
  ASSERT_TRUE(run_until([&] {
    got += peer.receive_some();
    return got.size() >= writes * 4096 + 7;
  }));
  EXPECT_EQ(got, std::string(writes * 4096, 'x') + "tailend");
  ASSERT_TRUE(await(*commands.back()));
  for (const auto& command : commands) EXPECT_EQ(command->answer(), status::success);
}

TEST_F(DriveTest, a_write_of_no_bytes_or_of_too_many_is_an_invalid_field) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  for (const uint32_t size : {0u, 4097u, 0x80000000u, UINT32_MAX}) {
    EXPECT_EQ(run(make(function::comm, relay_v1::comm_write, size, descriptor)).answer(),
              status::invalid_field)
        << size;
  }
  EXPECT_EQ(write(descriptor, std::string(4096, 'y')), status::success) << "the longest";
  ASSERT_TRUE(peer.await_events(POLLIN));
  EXPECT_EQ(peer.receive_some(), std::string(4096, 'y'));
}

TEST_F(DriveTest, bad_writes_between_good_ones_do_not_disturb_them) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  const DriveCommand* bad[2];
  for (int i = 0; i < 2; ++i) {
    port->submit(make_write(descriptor, i == 0 ? "one " : "two"));
    bad[i] = &make(function::comm, relay_v1::comm_write, 5000, descriptor);
    port->submit(*commands.back());
  }
  port->ring();
  for (const DriveCommand* command : bad) EXPECT_EQ(command->answer(), status::invalid_field);
  ASSERT_TRUE(peer.await_events(POLLIN));
  EXPECT_EQ(peer.receive_some(), "one two");
}

TEST_F(DriveTest, close_fails_writes_that_wait) {
  Listener listener(16, 4096);
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  const auto unanswered = fill(descriptor);
  close(descriptor);
  EXPECT_EQ(unanswered[0]->completed, 1u);
  EXPECT_EQ(unanswered[0]->answer(), status::vendor_errno(ECONNABORTED));
}

// --- a peer that resets ---

TEST_F(DriveTest, a_reset_is_told_to_reads_and_writes) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  DriveCommand& waits = send(make_read(descriptor));
  peer.reset();
  ASSERT_TRUE(await(waits));
  EXPECT_EQ(waits.answer(), status::vendor_errno(ECONNRESET));
  EXPECT_EQ(write(descriptor, "x"), status::vendor_errno(EPIPE));
}

TEST_F(DriveTest, a_reset_leaves_the_reads_of_a_shipped_drive_uncompleted) {
  start_shipped();
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  const DriveCommand& waits = send(make_read(descriptor));
  peer.reset();
  poll_loop();
  EXPECT_EQ(waits.completed, 0u);
  EXPECT_EQ(write(descriptor, "x"), 0x006) << "the reset has arrived";
  const DriveCommand& later = send(make_read(descriptor));
  EXPECT_EQ(close(descriptor).answer(), status::success);
  poll_loop();
  EXPECT_EQ(waits.completed, 0u);
  EXPECT_EQ(later.completed, 0u);
  EXPECT_EQ(open(listener.port()), descriptor) << "the relay is free all the same";
}

TEST_F(DriveTest, a_reset_that_a_write_meets_first_leaves_the_reads_of_a_shipped_drive_uncompleted_too) {
  start_shipped();
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  const DriveCommand& waits = send(make_read(descriptor));
  peer.reset();
  EXPECT_EQ(send(make_write(descriptor, "x")).answer(), 0x006);
  poll_loop();
  close(descriptor);
  EXPECT_EQ(waits.completed, 0u);
}

// --- stalls ---

TEST_F(DriveTest, a_peer_that_does_not_read_stalls_every_command_of_a_shipped_drive_until_it_reads) {
  start_shipped();
  Listener listener(16, 4096);
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  const auto unanswered = fill(descriptor);
  const DriveCommand& identify = send(make(function::identify));
  poll_loop();
  EXPECT_EQ(identify.completed, 0u);
  ASSERT_TRUE(run_until([&] {
    peer.receive_some();
    return identify.completed > 0;
  }));
  EXPECT_EQ(identify.text(), "This device has compute");
  EXPECT_EQ(unanswered[0]->answer(), status::success);
}

TEST_F(DriveTest, a_stall_of_a_shipped_drive_ends_with_the_connection) {
  start_shipped();
  Listener listener(16, 4096);
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  const auto unanswered = fill(descriptor);
  const DriveCommand& identify = send(make(function::identify));
  peer.reset();
  ASSERT_TRUE(await(identify));
  EXPECT_EQ(unanswered[0]->answer(), 0x006);
}

TEST_F(DriveTest, a_peer_that_does_not_read_stalls_nothing_but_its_own_relay) {
  Listener listener(16, 4096);
  const uint32_t descriptor = open(listener.port());
  Peer peer = listener.accept();
  fill(descriptor);
  EXPECT_EQ(run(make(function::identify)).text(), "This device has compute");
  const uint32_t other = open(listener.port());
  Peer second = listener.accept();
  EXPECT_EQ(write(other, "passes"), status::success);
  peer.send("and back");
  EXPECT_EQ(read(descriptor).payload(), "and back");
}

TEST_F(DriveTest, a_connect_without_an_answer_stalls_a_shipped_drive_only) {
  Listener full(0);
  std::vector<Peer> attempts;
  while (attempts.size() < 16 && (attempts.empty() || attempts.back().poll_events() != 0)) {
    attempts.push_back(full.connect());
  }
  for (const bool shipped : {false, true}) {
    start({.relays = 4, .netns = "", .firmware = shipped ? Firmware::shipped : Firmware::fixed});
    const DriveCommand& open = send(make_open("127.0.0.1", std::to_string(full.port())));
    const DriveCommand& identify = send(make(function::identify));
    poll_loop();
    EXPECT_EQ(open.completed, 0u);
    EXPECT_EQ(identify.completed, shipped ? 0u : 1u);
  }
}

// --- hostile commands ---

TEST_F(DriveTest, short_buffers_are_invalid_fields_and_are_not_touched) {
  Listener listener;
  const uint32_t descriptor = open(listener.port());
  for (const uint32_t size : {0u, 1u, 4u, 512u, 4095u}) {
    const auto small = std::make_unique<uint8_t[]>(size);  // a sanitizer guards its end
    for (DriveCommand* command :
         {&make(function::identify), &make_open("127.0.0.1", "22"), &make_write(descriptor, "x"),
          &make_read(descriptor), &make(function::close, 0, 0, descriptor), &make(1)}) {
      if (command->cdw10 == 1) command->opcode = opcode::identify;
      command->data = small.get();
      command->data_length = size;
      EXPECT_EQ(run(*command).answer(), status::invalid_field) << size << " " << command->cdw10;
    }
    EXPECT_EQ(std::count(small.get(), small.get() + size, 0), static_cast<ptrdiff_t>(size));
  }
  EXPECT_EQ(write(descriptor, "the relay is still there"), status::success);
}

TEST_F(DriveTest, fields_without_a_terminator_are_refused) {
  DriveCommand& all_digits = make(function::open);
  std::memset(all_digits.bytes(), '1', page_size);
  EXPECT_EQ(run(all_digits).answer(), status::vendor_errno(EINVAL));
  DriveCommand& node = make_open("127.0.0.1", "22");
  std::memset(node.bytes() + 9, ' ', 256 - 9);
  EXPECT_EQ(run(node).answer(), status::vendor_errno(EINVAL));
  DriveCommand& service = make_open("127.0.0.1", "");
  std::memset(service.bytes() + 256, '2', 256);
  EXPECT_EQ(run(service).answer(), status::vendor_errno(EINVAL));
}

TEST_F(DriveTest, the_end_of_a_drive_with_everything_in_flight_is_survived) {
  Listener listener(16, 4096);
  for (const bool shipped : {false, true}) {
    start({.relays = 4, .netns = "", .firmware = shipped ? Firmware::shipped : Firmware::fixed});
    const uint32_t descriptor = open(listener.port());
    Peer peer = listener.accept();
    send(make_read(descriptor));
    fill(descriptor);
    send(make_open("127.0.0.1", std::to_string(listener.port())));
    port->submit(make_read(descriptor));  // never rung for
    port.reset();
    poll_loop();
  }
}

// Any mixture of commands, valid and not: none is completed twice, and without faults none is forgotten.
TEST_F(DriveTest, random_commands_are_completed_once) {
  constexpr uint32_t functions[] = {function::identify, function::comm,  function::comm,
                                    function::open,     function::close, 7};
  for (const bool shipped : {false, true}) {
    start({.relays = 4, .netns = "", .firmware = shipped ? Firmware::shipped : Firmware::fixed});
    commands.clear();
    Listener listener(64);
    std::deque<Peer> peers;  // that read; one that does not would stall the shipped drive for good
    const auto serve_peers = [&] {
      if (listener.has_connection()) peers.push_back(listener.accept());
      for (Peer& peer : peers) peer.receive_some();
    };
    std::mt19937 random(20);
    const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(random() % bound); };
    const auto one_in = [&](uint32_t chances) { return below(chances) == 0; };
    for (int i = 0; i < 5000; ++i) {
      DriveCommand& command = make(functions[below(6)]);
      command.cdw11 = below(3);
      command.cdw12 = one_in(5) ? static_cast<uint32_t>(random()) : below(4098);
      command.cdw13 = below(6);
      if (one_in(20)) command.opcode = static_cast<uint8_t>(random());
      if (one_in(20)) command.data_length = below(page_size);
      if (command.cdw10 == function::open && !one_in(3)) {
        relay_v1::encode_open(command.data, "127.0.0.1", std::to_string(listener.port()));
      }
      port->submit(command);
      if (one_in(4)) port->ring();
      if (one_in(8)) poll_loop();
      serve_peers();
      if (peers.size() > 4) peers.pop_front();
    }
    for (uint32_t descriptor = 0; descriptor < 4; ++descriptor)
      port->submit(make(function::close, 0, 0, descriptor));
    port->ring();
    ASSERT_TRUE(run_until([&] {
      serve_peers();
      return commands.back()->completed > 0;
    }));
    ptrdiff_t forgotten = 0;
    for (const auto& command : commands) {
      EXPECT_LE(command->completed, 1u);
      forgotten += command->completed == 0;
    }
    EXPECT_TRUE(shipped || forgotten == 0) << forgotten;
    port.reset();
  }
}

}  // namespace
}  // namespace nvsock
