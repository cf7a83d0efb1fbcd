// The host of NVMe/TCP against a controller that does what the test says: data both ways, digests, lost
// connections, and bytes that break the rules.
#include "libnvsock/port/nvme_tcp_port.hpp"

#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "libnvsock/base/buffer.hpp"
#include "libnvsock/base/crc32c.hpp"
#include "libnvsock/port/nvme_tcp_socket.hpp"
#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using namespace nvme_tcp;
using test::expect_sentence;
using test::Listener;
using test::pattern;
using test::Peer;

constexpr uint32_t large = 128 * 1024;
const std::string csd_nqn = "nqn.2014-08.org.example:csd";

// --- the controller ---

// One connection of the controller, spoken with blocking calls on a thread of its own. What it receives that
// is not as it should be, and a host that goes, end it with an exception.
class Controller {
 public:
  struct Ended {};
  struct Capsule {
    uint16_t cid = 0;
    Command command;
    nvme::DataPointer data;
    std::string in_capsule;
  };

  Controller(Listener& listener, Digests digests = {}) : peer_(listener.accept()), digests_(digests) {}

  Peer& peer() { return peer_; }
  void send(std::string_view bytes) {
    if (::send(peer_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size()))
      throw Ended();
  }
  std::string receive(size_t size) {
    std::string bytes(size, '\0');
    if (size > 0 &&
        (!peer_.await_events(POLLIN) || recv(peer_.fd(), bytes.data(), size, MSG_WAITALL) != ssize_t(size)))
      throw Ended();
    return bytes;
  }

  // A PDU of the host: its header, checked, and its data.
  struct Pdu {
    Header header;
    std::vector<uint8_t> bytes;
    std::string data;
  };
  Pdu pdu(Digests digests) {
    Pdu pdu;
    std::string bytes = receive(common_header_size);
    Fault fault;
    const auto header = parse_header(std::span<const uint8_t, common_header_size>(
                                         reinterpret_cast<const uint8_t*>(bytes.data()), common_header_size),
                                     From::host, digests, fault);
    EXPECT_TRUE(header) << "the host sent a bad PDU: " << fault.where;
    if (!header) throw Ended();
    bytes += receive((header->data != 0 ? header->data_begins
                                        : header->header + (header->header_digest ? digest_size : 0)) -
                     common_header_size);
    pdu.header = *header;
    pdu.bytes.assign(bytes.begin(), bytes.begin() + header->header);
    if (header->header_digest) {
      EXPECT_EQ(load_le<uint32_t>(reinterpret_cast<const uint8_t*>(&bytes[header->header])),
                crc32c(pdu.bytes));
    }
    pdu.data = receive(header->data);
    if (header->data_digest) {
      const std::string digest = receive(digest_size);
      EXPECT_EQ(load_le<uint32_t>(reinterpret_cast<const uint8_t*>(digest.data())), crc32c(span(pdu.data)));
    }
    return pdu;
  }
  // The next capsule that is no keep-alive.
  Capsule capsule() {
    for (;;) {
      Pdu pdu = this->pdu(digests_);
      EXPECT_EQ(pdu.header.type, PduType::capsule_cmd);
      Capsule capsule;
      const auto submission = nvme::parse_submission(submission_of(pdu.bytes), capsule.command);
      capsule.cid = submission.cid;
      capsule.data = submission.data.value_or(nvme::DataPointer{});
      capsule.in_capsule = std::move(pdu.data);
      if (capsule.command.opcode != nvme::opcode::keep_alive || !answers_keep_alive) return capsule;
      on_keep_alive();
      complete(capsule);
    }
  }
  // Data the host was asked for with R2T: one PDU after the other, into their places.
  void collect(const Capsule& capsule, std::string& into, uint32_t offset, uint32_t size) {
    uint8_t out[max_header_size];
    send(text(out,
              encode(R2t{.cid = capsule.cid, .tag = 77, .offset = offset, .length = size}, digests_, out)));
    for (uint32_t at = offset; at < offset + size;) {
      const Pdu pdu = this->pdu(digests_);
      ASSERT_EQ(pdu.header.type, PduType::h2c_data);
      Fault fault;
      const auto data = parse_data(pdu.header, pdu.bytes, fault);
      ASSERT_TRUE(data);
      EXPECT_EQ(data->cid, capsule.cid);
      EXPECT_EQ(data->tag, 77);
      EXPECT_EQ(data->offset, at);
      EXPECT_LE(data->length, max_h2c_data);
      EXPECT_EQ(data->last, at + data->length == offset + size);
      into.replace(at, data->length, pdu.data);
      at += data->length;
    }
  }

  // C2HData as it is on the wire.
  std::string data_pdu(const Data& data, std::string_view bytes) {
    uint8_t out[max_header_size];
    std::string pdu(text(out, encode(data, From::controller, digests_, out)));
    pdu += bytes;
    if (digests_.data) {
      uint8_t digest[digest_size];
      store_digest(span(bytes), digest);
      pdu += text(digest, digest_size);
    }
    return pdu;
  }
  std::string response(uint16_t cid, uint16_t status = 0, uint64_t result = 0) {
    uint8_t out[max_header_size];
    return std::string(text(
        out, encode(nvme::CompletionEntry{.result = result, .cid = cid, .status = status}, digests_, out)));
  }
  void data(const Capsule& capsule, uint32_t offset, std::string_view bytes, bool last = true) {
    send(data_pdu(
        {.cid = capsule.cid, .offset = offset, .length = static_cast<uint32_t>(bytes.size()), .last = last},
        bytes));
  }
  void complete(const Capsule& capsule, uint16_t status = 0, uint64_t result = 0) {
    send(response(capsule.cid, status, result));
  }

  void greet() {
    EXPECT_EQ(pdu({}).header.type, PduType::ic_req);
    uint8_t out[max_header_size];
    send(text(out, encode(IcResp{.digests = digests_, .max_h2c_data = max_h2c_data}, out)));
  }
  // Until the host thinks the controller live.
  void bring_up() {
    greet();
    complete(expect_fabrics(nvme::fabrics_type::connect), 0, 1);
    complete(expect_fabrics(nvme::fabrics_type::property_get), 0, uint64_t{1} << 37 | 15u << 24 | 127);
    const Capsule enable = expect_fabrics(nvme::fabrics_type::property_set);
    EXPECT_EQ(enable.command.cdw12, 0x460001u);
    complete(enable);
    complete(expect_fabrics(nvme::fabrics_type::property_get), 0, 0);  // not ready yet
    complete(expect_fabrics(nvme::fabrics_type::property_get), 0, 1);
    const Capsule identify = capsule();
    EXPECT_EQ(identify.command.opcode, opcode::identify);
    data(identify, 0, std::string(page_size, '\0'));
    complete(identify);
  }
  Capsule expect_fabrics(uint32_t type) {
    Capsule capsule = this->capsule();
    EXPECT_EQ(capsule.command.opcode, nvme::opcode::fabrics);
    EXPECT_EQ(capsule.command.nsid, type);
    return capsule;
  }
  void await_end() {
    char rest[4096];
    while (peer_.await_events(POLLIN) && recv(peer_.fd(), rest, sizeof rest, 0) > 0) continue;
  }

  uint32_t max_h2c_data = 32768;
  bool answers_keep_alive = true;
  std::function<void()> on_keep_alive = [] {};

  static std::string_view text(const uint8_t* bytes, size_t size) {
    return {reinterpret_cast<const char*>(bytes), size};
  }
  static std::span<const uint8_t> span(std::string_view bytes) {
    return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
  }

 private:
  Peer peer_;
  const Digests digests_;
};

// --- the host ---

struct PortCommand : Command {
  explicit PortCommand(uint8_t code, uint32_t size = 0) {
    opcode = code;
    data_length = size;
    if (size > 0) {
      // Bytes around it show whether anything was written where nothing may be.
      memory.assign(size + 2 * page_size, '#');
      data = memory.data() + page_size;
    }
    timeout = std::chrono::seconds(60);
    done = [](Command& command) { ++static_cast<PortCommand&>(command).completed; };
  }
  std::string bytes() const { return memory.substr(page_size, data_length); }
  bool kept_in_bounds() const {
    return memory.empty() || (memory.substr(0, page_size) == std::string(page_size, '#') &&
                              memory.substr(page_size + data_length) == std::string(page_size, '#'));
  }
  std::string memory;
  unsigned completed = 0;
};

constexpr uint8_t to_drive = 0xC1, to_host = 0xC2, no_data = 0xC0;

class NvmeTcpPortTest : public ::testing::Test {
 protected:
  ~NvmeTcpPortTest() override {
    port.reset();
    join();
  }

  // Runs the controller on a thread of its own; `serve` may take several connections.
  void controller(std::function<void(Listener&)> serve) {
    join();
    thread = std::thread([this, serve = std::move(serve)] {
      try {
        serve(listener);
      } catch (const Controller::Ended&) {
        ADD_FAILURE() << "the host has gone";
      }
    });
  }
  void join() {
    if (thread.joinable()) thread.join();
  }
  Result<std::unique_ptr<CommandPort>> try_open() {
    NvmeTcpAddress target;
    target.endpoint = *parse_endpoint(listener.text());
    target.subsystem = csd_nqn;
    target.digests = digests;
    return open_nvme_tcp_port(
        loop, target, [this](LogLevel, const std::string& text) { logged.push_back(text); }, options);
  }
  void open() {
    auto opened = try_open();
    ASSERT_TRUE(opened) << opened.error().text;
    port = std::move(*opened);
  }
  PortCommand& submit(uint8_t code, uint32_t size = 0) {
    commands.emplace_back(code, size);
    port->submit(commands.back());
    return commands.back();
  }
  PortCommand& start(uint8_t code, uint32_t size = 0) {
    PortCommand& command = submit(code, size);
    port->ring();
    return command;
  }
  [[nodiscard]] bool ended(const PortCommand& command) {
    return test::run_until(loop, [&] { return command.completed > 0; });
  }
  // Serves one connection, after which the test runs against a second one.
  void expect_reconnect(const std::string& why) {
    ASSERT_TRUE(test::run_until(loop, [&] { return port->describe().ends_with("reconnects: 1"); }));
    ASSERT_FALSE(logged.empty());
    EXPECT_NE(logged.front().find(why), std::string::npos) << logged.front();
  }
  // A connection that works: one command, and it stays until the host goes.
  static void serve_one(Listener& listener, Digests digests = {}) {
    Controller controller(listener, digests);
    controller.bring_up();
    controller.complete(controller.capsule(), 0, 42);
    controller.await_end();
  }
  void expect_served() {
    const PortCommand& command = start(no_data);
    ASSERT_TRUE(ended(command));
    EXPECT_TRUE(command.completion.ok());
    EXPECT_EQ(command.completion.dw0, 42u);
  }

  asio::io_context loop;
  Listener listener;
  Digests digests;
  NvmeTcpPortOptions options;
  std::vector<std::string> logged;
  std::deque<PortCommand> commands;
  std::unique_ptr<CommandPort> port;
  std::thread thread;
};

TEST_F(NvmeTcpPortTest, connect_says_who_and_to_what) {
  Controller::Capsule connect;
  controller([&](Listener& at) {
    Controller controller(at);
    controller.greet();
    connect = controller.capsule();
    controller.complete(connect, nvme::status::connect_controller_busy);
    controller.await_end();
  });
  expect_sentence(try_open(),
                  "cannot use " + listener.text() +
                      ": it is full, it has no controller left for this host; its log says who has "
                      "them: end a mount of it, or wait");
  join();
  const nvme::Connect fields = nvme::parse_connect(connect.command);
  EXPECT_EQ(fields.record_format, 0);
  EXPECT_EQ(fields.queue, 0);
  EXPECT_EQ(fields.queue_size, 32);
  EXPECT_EQ(fields.keep_alive_ms, 10'000u);
  ASSERT_EQ(connect.in_capsule.size(), nvme::connect_data_size);
  const auto data =
      nvme::parse_connect_data(Controller::span(connect.in_capsule).first<nvme::connect_data_size>());
  EXPECT_EQ(data.subsystem, csd_nqn);
  EXPECT_EQ(data.controller, nvme::any_controller);
  EXPECT_TRUE(data.host.starts_with("nqn.")) << data.host;
  EXPECT_NE(data.host_id, (std::array<uint8_t, 16>{}));
}

TEST_F(NvmeTcpPortTest, why_a_target_cannot_be_used_is_one_sentence) {
  using Serve = std::function<void(Controller&)>;
  const auto refused = [&](const Serve& serve, const std::string& why) {
    controller([&](Listener& at) {
      Controller controller(at);
      serve(controller);
      controller.await_end();
    });
    expect_sentence(try_open(), why);
    join();
  };
  const auto connect_fails = [](uint16_t status, uint32_t result) {
    return [=](Controller& controller) {
      controller.greet();
      controller.complete(controller.capsule(), status, result);
    };
  };
  refused(connect_fails(0x182, 1 << 16 | 256), "it has no subsystem \"" + csd_nqn + "\"");
  refused(connect_fails(0x182, 1 << 16 | 512), "it does not admit this host, \"nqn.");
  refused(connect_fails(0x184, 1 << 16 | 512), "it does not admit this host, \"nqn.");
  refused(connect_fails(0x182, 44), "it refuses to connect: status 182h");
  refused(connect_fails(0x191, 0), "it demands authentication, which is not supported");
  refused(connect_fails(0, 1 | 1 << 17), "it demands authentication, which is not supported");
  refused([](Controller& c) { c.send("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"); }, "does not speak NVMe/TCP");
  refused(
      [](Controller& c) {
        c.send(std::string("\x15\x03\x03\x00\x02\x02\x32", 7));
        c.peer().end_writing();
      },
      "it requires TLS; give ?tls-key=FILE");
  refused([](Controller& c) { c.peer().end_writing(); }, "without a word; does it require TLS");
  digests.data = true;
  refused([](Controller& c) { c.greet(); }, "it does not agree to the digests asked for");
  options.attempt = std::chrono::milliseconds(50);
  refused([](Controller&) {}, "no answer within 50 ms");
  listener.close();
  expect_sentence(try_open(), "Connection refused");
}

class DataTest : public NvmeTcpPortTest, public ::testing::WithParamInterface<Digests> {};

TEST_P(DataTest, data_goes_both_ways_by_every_way_there_is) {
  digests = GetParam();
  const std::string bytes = pattern(large);
  std::string got_small, got_large;
  controller([&](Listener& at) {
    Controller controller(at, digests);
    controller.bring_up();
    Controller::Capsule small = controller.capsule();
    EXPECT_EQ(small.data.kind, nvme::DataPointer::Kind::in_capsule);
    EXPECT_EQ(small.data.length, 8192u);
    got_small = small.in_capsule;
    controller.complete(small, status::vendor_errno(ESTALE));

    const Controller::Capsule big = controller.capsule();
    EXPECT_EQ(big.data.kind, nvme::DataPointer::Kind::transport);
    EXPECT_EQ(big.data.length, large);
    EXPECT_EQ(big.in_capsule, "");
    got_large.resize(large);
    // In pieces, of which one is larger than a PDU may be.
    controller.collect(big, got_large, 0, 4);
    controller.collect(big, got_large, 4, 100'000);
    controller.collect(big, got_large, 100'004, large - 100'004);
    controller.complete(big, 0, 0x1'0000'0007);

    const Controller::Capsule read = controller.capsule();
    controller.data(read, 0, std::string_view(bytes).substr(0, 5'000), false);
    controller.data(read, 5'000, std::string_view(bytes).substr(5'000));
    controller.complete(read, 0, large);
    const Controller::Capsule part = controller.capsule();
    controller.data(part, 0, "abcd");
    controller.complete(part, 0, 4);
    controller.await_end();
  });
  open();
  commands.emplace_back(to_drive, 8192);
  commands.emplace_back(to_drive, large);
  for (PortCommand& command : commands) {
    std::memcpy(command.data, bytes.data(), command.data_length);
    port->submit(command);
    port->ring();
    ASSERT_TRUE(ended(command));
  }
  EXPECT_EQ(status::errno_of(commands[0].completion.status), ESTALE);
  EXPECT_EQ(got_small, bytes.substr(0, 8192));
  EXPECT_TRUE(commands[1].completion.ok());
  EXPECT_EQ(commands[1].completion.dw0, 7u);
  EXPECT_EQ(got_large, bytes);

  const PortCommand& read = start(to_host, large);
  ASSERT_TRUE(ended(read));
  EXPECT_EQ(read.bytes(), bytes);
  const PortCommand& part = start(to_host, 4096);
  ASSERT_TRUE(ended(part));
  EXPECT_EQ(part.completion.dw0, 4u);
  EXPECT_EQ(part.bytes(), "abcd" + std::string(4092, '#'));
  EXPECT_TRUE(read.kept_in_bounds() && part.kept_in_bounds());
}

INSTANTIATE_TEST_SUITE_P(Digests, DataTest,
                         ::testing::Values(Digests{}, Digests{.header = true}, Digests{.data = true},
                                           Digests{.header = true, .data = true}),
                         [](const auto& of) {
                           return std::string(of.param.header ? "header" : "") +
                                  (of.param.data ? "data" : "") +
                                  (of.param.header || of.param.data ? "" : "none");
                         });

TEST_F(NvmeTcpPortTest, bytes_may_arrive_one_at_a_time) {
  digests = {.header = true, .data = true};
  controller([&](Listener& at) {
    Controller controller(at, digests);
    controller.bring_up();
    const auto read = controller.capsule();
    const std::string all =
        controller.data_pdu({.cid = read.cid, .length = 300, .last = true}, pattern(300)) +
        controller.response(read.cid, 0, 300);
    const int on = 1;
    setsockopt(controller.peer().fd(), IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on);
    for (const char byte : all) controller.send({&byte, 1});
    controller.await_end();
  });
  open();
  const PortCommand& read = start(to_host, 4096);
  ASSERT_TRUE(ended(read));
  EXPECT_EQ(read.bytes().substr(0, 300), pattern(300));
}

TEST_F(NvmeTcpPortTest, sixteen_commands_are_in_flight_and_the_others_wait) {
  controller([&](Listener& at) {
    Controller controller(at);
    controller.bring_up();
    std::deque<Controller::Capsule> held;
    for (int i = 0; i < 16; ++i) held.push_back(controller.capsule());
    EXPECT_FALSE(controller.peer().poll_events() & POLLIN) << "a 17th";
    // Answered from the last to the first, each of the next ones as it comes.
    for (int i = 0; i < 24; ++i) {
      controller.complete(held.back(), 0, held.back().command.cdw10);
      held.pop_back();
      held.push_back(controller.capsule());
    }
    for (const auto& capsule : held) controller.complete(capsule, 0, capsule.command.cdw10);
    controller.await_end();
  });
  open();
  for (uint32_t i = 0; i < 40; ++i) submit(no_data).cdw10 = i;
  port->ring();
  for (const PortCommand& command : commands) {
    ASSERT_TRUE(ended(command));
    EXPECT_EQ(command.completion.dw0, command.cdw10);
    EXPECT_EQ(command.completed, 1u);
  }
}

TEST_F(NvmeTcpPortTest, a_command_that_moves_data_nowhere_or_both_ways_is_not_carried) {
  controller([&](Listener& at) { serve_one(at); });
  open();
  const PortCommand& command = start(no_data, 4096);
  EXPECT_EQ(command.completed, 1u);
  EXPECT_EQ(command.completion.error, ENOTSUP);
  expect_served();
}

// --- connections that go ---

TEST_F(NvmeTcpPortTest, a_lost_connection_ends_what_was_in_flight_and_another_follows) {
  controller([&](Listener& at) {
    {
      Controller controller(at);
      controller.bring_up();
      controller.capsule();
      const auto read = controller.capsule();
      // In the middle of the data of one.
      controller.send(controller.data_pdu({.cid = read.cid, .length = large, .last = true}, pattern(large))
                          .substr(0, 70'000));
    }
    serve_one(at);
  });
  open();
  const PortCommand& write = start(to_drive, large);
  const PortCommand& read = start(to_host, large);
  ASSERT_TRUE(ended(write));
  ASSERT_TRUE(ended(read));
  EXPECT_EQ(write.completion.error, ECONNRESET);
  EXPECT_EQ(read.completion.error, ECONNRESET);
  const PortCommand& meanwhile = start(no_data);
  EXPECT_EQ(meanwhile.completed, 1u) << "at once";
  EXPECT_EQ(meanwhile.completion.error, 0);
  EXPECT_EQ(meanwhile.completion.status, status::host_path_error);
  expect_reconnect("is lost (it closed the connection)");
  expect_served();
  EXPECT_EQ(write.completed + read.completed + meanwhile.completed, 3u);
}

TEST_F(NvmeTcpPortTest, a_target_that_is_back_later_is_found) {
  controller([&](Listener& at) {
    Controller(at).bring_up();
    for (int i = 0; i < 4; ++i) at.accept().reset();
    Controller(at).greet();
    serve_one(at);
  });
  open();
  ASSERT_TRUE(test::run_until(loop, [&] { return port->describe().ends_with("reconnects: 1"); }));
  EXPECT_EQ(logged.size(), 2u) << "one outage is told once, and its end";
  expect_served();
}

TEST_F(NvmeTcpPortTest, a_command_that_expires_ends_the_connection) {
  controller([&](Listener& at) {
    Controller controller(at);
    controller.bring_up();
    controller.capsule();
    controller.await_end();
    serve_one(at);
  });
  open();
  PortCommand& slow = submit(no_data);
  slow.timeout = std::chrono::milliseconds(30);
  port->ring();
  ASSERT_TRUE(ended(slow));
  EXPECT_EQ(slow.completion.error, ETIMEDOUT);
  expect_reconnect("a command was not answered in time");
  expect_served();
}

TEST_F(NvmeTcpPortTest, keep_alives_go_out_while_nothing_else_does) {
  options.keep_alive = std::chrono::seconds(1);
  std::atomic<unsigned> heard = 0;
  controller([&](Listener& at) {
    Controller controller(at);
    controller.on_keep_alive = [&] { ++heard; };
    controller.bring_up();
    controller.complete(controller.capsule(), 0, 42);
    controller.await_end();
  });
  open();
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(test::run_until(loop, [&] { return heard == 3; }));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(1450));
  expect_served();
  EXPECT_TRUE(logged.empty()) << logged.front();
}

TEST_F(NvmeTcpPortTest, a_silent_target_is_noticed) {
  options.keep_alive = std::chrono::milliseconds(60);
  controller([&](Listener& at) {
    Controller controller(at);
    controller.bring_up();
    controller.answers_keep_alive = false;
    controller.await_end();
    at.close();
  });
  open();
  const PortCommand& waiting = start(to_host, large);
  ASSERT_TRUE(ended(waiting));
  EXPECT_EQ(waiting.completion.error, ETIMEDOUT);
}

TEST_F(NvmeTcpPortTest, a_port_that_goes_completes_nothing_more) {
  controller([&](Listener& at) {
    Controller controller(at);
    controller.bring_up();
    controller.capsule();
    controller.await_end();
  });
  open();
  const PortCommand& command = start(to_host, large);
  EXPECT_TRUE(port->stop());
  port.reset();
  loop.restart();
  loop.poll();
  EXPECT_EQ(command.completed, 0u);
}

// --- controllers that break the rules ---

TEST_F(NvmeTcpPortTest, a_wrong_digest_ends_the_connection) {
  digests = {.header = true, .data = true};
  for (const bool header : {true, false}) {
    logged.clear();
    controller([&](Listener& at) {
      {
        Controller controller(at, digests);
        controller.bring_up();
        const auto read = controller.capsule();
        std::string pdu = controller.data_pdu({.cid = read.cid, .length = 4096, .last = true}, pattern(4096));
        pdu[header ? data_size + 1 : pdu.size() - 1] ^= 1;
        controller.send(pdu);
        controller.await_end();
      }
      serve_one(at, digests);
    });
    open();
    const PortCommand& read = start(to_host, 4096);
    ASSERT_TRUE(ended(read));
    EXPECT_EQ(read.completion.error, header ? EPROTO : EIO);
    expect_reconnect(header ? "it broke the rules of NVMe/TCP (fatal error 3" : "a data digest is wrong");
    expect_served();
    port.reset();
    join();
  }
}

// Whatever it sends, nothing is written outside of what the commands lend, and the connection ends.
TEST_F(NvmeTcpPortTest, what_breaks_the_rules_ends_the_connection_and_touches_nothing) {
  using Break = std::function<std::string(Controller&, uint16_t write, uint16_t read)>;
  const auto raw = [](auto encode_to) {
    uint8_t out[max_header_size];
    return std::string(Controller::text(out, encode_to(out)));
  };
  const auto r2t = [&](uint16_t cid, uint32_t offset, uint32_t length) {
    return raw(
        [=](auto& out) { return encode(R2t{.cid = cid, .offset = offset, .length = length}, {}, out); });
  };
  const auto data = [](Controller& c, uint16_t cid, uint32_t offset, uint32_t size, bool success = false) {
    return c.data_pdu({.cid = cid, .offset = offset, .length = size, .last = !success, .success = success},
                      std::string(size, 'x'));
  };
  const std::pair<const char*, Break> breaks[] = {
      {"data beyond the buffer", [&](auto& c, auto, auto read) { return data(c, read, large - 4, 8); }},
      {"an offset that wraps", [&](auto& c, auto, auto read) { return data(c, read, UINT32_MAX - 3, 8); }},
      {"data for a write", [&](auto& c, auto write, auto) { return data(c, write, 0, 4); }},
      {"data for no command", [&](auto& c, auto, auto) { return data(c, 9, 0, 4); }},
      {"data for a wild identifier", [&](auto& c, auto, auto) { return data(c, 0xfffe, 0, 4); }},
      {"success before the end", [&](auto& c, auto, auto read) { return data(c, read, 0, 4, true); }},
      {"a completion of no command", [](auto& c, auto, auto) { return c.response(12); }},
      {"two completions", [](auto& c, auto, auto read) { return c.response(read) + c.response(read); }},
      {"R2T for a read", [&](auto&, auto, auto read) { return r2t(read, 0, 4); }},
      {"R2T beyond the data", [&](auto&, auto write, auto) { return r2t(write, large, 4); }},
      {"R2T behind the data", [&](auto&, auto write, auto) { return r2t(write, large + 4, 4); }},
      {"R2T of nothing", [&](auto&, auto write, auto) { return r2t(write, 0, 0); }},
      {"R2T that wraps", [&](auto&, auto write, auto) { return r2t(write, 8, UINT32_MAX); }},
      {"R2T for no command", [&](auto&, auto, auto) { return r2t(1000, 0, 4); }},
      {"the same R2T twice", [&](auto&, auto w, auto) { return r2t(w, 0, 4) + r2t(w, 0, 4); }},
      {"a second ICResp",
       [&](auto&, auto, auto) { return raw([](auto& out) { return encode(IcResp{}, out); }); }},
      {"a PDU of the host",
       [&](auto&, auto, auto) { return raw([](auto& out) { return encode(IcReq{}, out); }); }},
      {"C2HTermReq",
       [&](auto&, auto, auto) {
         return raw([](auto& out) { return encode_term(From::controller, {}, out); });
       }},
      {"nonsense", [](auto&, auto, auto) { return std::string(200, '\xff'); }},
  };
  for (const auto& [what, broken] : breaks) {
    SCOPED_TRACE(what);
    logged.clear();
    controller([&, &bytes = broken](Listener& at) {
      {
        Controller controller(at);
        controller.bring_up();
        const auto write = controller.capsule(), read = controller.capsule();
        controller.send(bytes(controller, write.cid, read.cid));
        controller.await_end();
      }
      serve_one(at);
    });
    open();
    const PortCommand& write = start(to_drive, large);
    const PortCommand& read = start(to_host, large);
    ASSERT_TRUE(ended(write));
    ASSERT_TRUE(ended(read));
    EXPECT_EQ(write.completion.error, EPROTO);
    EXPECT_TRUE(write.kept_in_bounds() && read.kept_in_bounds());
    EXPECT_EQ(write.bytes(), std::string(large, '#'));
    expect_reconnect("it ");
    expect_served();
    port.reset();
    join();
  }
}

// A completion while the data of its command is on its way: the memory is ours until that has left.
TEST_F(NvmeTcpPortTest, a_write_that_is_answered_early_ends_when_its_data_has_left) {
  controller([&](Listener& at) {
    Controller controller(at);
    controller.max_h2c_data = 6 << 20;  // more than a socket takes at once
    controller.bring_up();
    const auto write = controller.capsule();
    std::string pdus;
    uint8_t out[max_header_size];
    pdus = Controller::text(out, encode(R2t{.cid = write.cid, .length = 8 << 20}, {}, out));
    controller.send(pdus + controller.response(write.cid, status::vendor_errno(EPROTO)));
    const auto data = controller.pdu({});
    EXPECT_TRUE(data.data == std::string(6 << 20, '#')) << "the PDU that was begun";
    controller.complete(controller.capsule(), 0, 42);
    controller.await_end();
  });
  open();
  const PortCommand& write = start(to_drive, 8 << 20);
  ASSERT_TRUE(ended(write));
  EXPECT_EQ(status::errno_of(write.completion.status), EPROTO);
  std::memset(write.data, '!', write.data_length);
  expect_served();
}

// Which addresses are of another machine decides whether PDUs carry digests by default.
TEST(NvmeTcpAddresses, loopback_and_sockets_of_this_machine_do_not_leave_it) {
  const auto leaves = [](const std::string& place) {
    const std::string uri = (place.starts_with("unix") || place.starts_with("vsock") ? "" : "nvme-tcp://") +
                            place + "/nqn.2014-08.org.example:csd";
    return leaves_machine(addresses_of(*parse_nvme_tcp_address(uri))->front());
  };
  for (const char* place : {"127.0.0.1:4420", "127.9.9.9:4420", "[::1]:4420", "[::ffff:127.0.0.1]:4420",
                            "unix:/run/csd", "vsock:2:4420"}) {
    EXPECT_FALSE(leaves(place)) << place;
  }
  for (const char* place :
       {"192.0.2.1:4420", "10.0.0.1:4420", "[2001:db8::1]:4420", "[::ffff:192.0.2.1]:4420"}) {
    EXPECT_TRUE(leaves(place)) << place;
  }
}

}  // namespace
}  // namespace nvsock
