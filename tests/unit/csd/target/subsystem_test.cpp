// A CSD on the network, over socket pairs and in virtual time: what takes too long for tests of the program.
#include "csd/target/subsystem.hpp"

#include <fcntl.h>

#include "tests/unit/csd/v2/session_support.hpp"
#include "tests/unit/support.hpp"

namespace nvsock::csd {
namespace {

using namespace std::chrono_literals;
using nvme_tcp::From;
using nvme_tcp::PduType;

constexpr char nqn[] = "nqn.2014-08.org.nvmexpress:uuid:csd";

// A host's end of a connection; what comes is kept PDU by PDU.
class HostEnd final : private nvme_tcp::PduReceiver::Handler {
 public:
  HostEnd(Subsystem& subsystem, asio::io_context& loop) : loop_(loop), receiver_(From::controller, *this) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    peer_ = test::Peer(ends[0]);
    connection_ = subsystem.add(ends[1], "host");
  }

  void initialize() {
    uint8_t out[nvme_tcp::max_header_size];
    send({out, encode(nvme_tcp::IcReq{}, out)});
  }
  // Returns the completion, or one of status FFFFh if there is none yet.
  nvme::CompletionEntry run(const Command& command, std::span<const uint8_t> data = {}) {
    uint8_t out[nvme_tcp::max_header_size];
    const nvme::DataPointer where{.kind = nvme::DataPointer::Kind::in_capsule,
                                  .length = static_cast<uint32_t>(data.size())};
    const size_t size =
        nvme_tcp::encode_capsule_cmd(command, ++cid_, data.empty() ? nvme::DataPointer{} : where,
                                     static_cast<uint32_t>(data.size()), {}, out);
    send({out, size});
    if (!data.empty()) send(data);
    completion_ = {.status = 0xffff};
    receive();
    return completion_;
  }
  nvme::CompletionEntry connect(uint16_t queue, uint16_t controller, uint32_t keep_alive_ms) {
    Command command;
    encode(nvme::Connect{.queue = queue, .queue_size = 32, .keep_alive_ms = keep_alive_ms}, command);
    uint8_t data[nvme::connect_data_size];
    encode(nvme::ConnectData{.controller = controller, .subsystem = nqn, .host = "nqn.host"}, data);
    return run(command, data);
  }
  void enable() {
    Command command;
    nvme::encode_property_set(
        {.offset = nvme::property::cc, .value = nvme::cc::enable | nvme::cc::entry_sizes}, command);
    EXPECT_EQ(run(command).status, 0);
  }
  void send(std::span<const uint8_t> bytes) {
    peer_.send({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  void receive() {
    for (int i = 0; i < 4; ++i) loop_.poll();
    loop_.restart();
    const std::string bytes = peer_.receive_some();
    receiver_.consume({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  }
  bool ended() {
    receive();
    return peer_.ended();
  }

  std::optional<nvme_tcp::Fault> term;

 private:
  bool on_pdu(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header,
              std::span<uint8_t>& data) override {
    if (checked.type == PduType::capsule_resp)
      completion_ = nvme::parse_completion(nvme_tcp::completion_of(header));
    if (checked.type == PduType::c2h_term) term = nvme_tcp::parse_term(header);
    buffer_.resize(checked.data);
    data = buffer_;
    return true;
  }
  bool on_data(bool) override { return true; }
  void on_fault(const nvme_tcp::Fault&) override { ADD_FAILURE() << "a malformed PDU"; }

  asio::io_context& loop_;
  test::Peer peer_;
  std::shared_ptr<NvmeConnection> connection_;
  nvme_tcp::PduReceiver receiver_;
  uint16_t cid_ = 0;
  nvme::CompletionEntry completion_;
  std::vector<uint8_t> buffer_;
};

class SubsystemTest : public ::testing::Test {
 protected:
  SubsystemTest()
      : storage(std::move(*Namespace::open(loop, "", 1 << 20))),
        subsystem(loop, clock, services, *storage, {.nqn = nqn, .hosts = {}, .tls = {}, .log = {}}) {}

  std::unique_ptr<HostEnd> host() {
    auto end = std::make_unique<HostEnd>(subsystem, loop);
    end->initialize();
    return end;
  }

  test::ManualClock clock;
  asio::io_context loop;  // holds connections, and they timers
  test::FakeServices services;
  std::unique_ptr<Namespace> storage;
  Subsystem subsystem;
};

TEST_F(SubsystemTest, a_connection_has_10_s_for_its_connect) {
  const auto idle = host();
  const auto good = host();
  EXPECT_EQ(good->connect(0, nvme::any_controller, 0).status, 0);
  clock.advance(9900ms);
  EXPECT_FALSE(idle->ended());
  clock.advance(200ms);
  EXPECT_TRUE(idle->ended());
  clock.advance(1h);
  EXPECT_FALSE(good->ended());
}

TEST_F(SubsystemTest, a_host_that_is_not_heard_for_its_keep_alive_timeout_loses_all_its_queues) {
  const auto admin = host();
  const auto connected = admin->connect(0, nvme::any_controller, 15'000);
  ASSERT_EQ(connected.status, 0);
  admin->enable();
  const auto io = host();
  ASSERT_EQ(io->connect(1, static_cast<uint16_t>(connected.result), 0).status, 0);
  Command keep_alive;
  keep_alive.opcode = nvme::opcode::keep_alive;
  for (int i = 0; i < 5; ++i) {
    clock.advance(14s);
    EXPECT_EQ(admin->run(keep_alive).status, 0);
  }
  // The I/O queue is no sign of life.
  clock.advance(14s);
  Command flush;
  flush.nsid = 1;
  EXPECT_EQ(io->run(flush).status, 0);
  EXPECT_EQ(subsystem.controllers(), 1u);
  clock.advance(2s);
  EXPECT_EQ(subsystem.controllers(), 0u);
  EXPECT_TRUE(admin->ended());
  EXPECT_TRUE(io->ended());
}

TEST_F(SubsystemTest, a_keep_alive_timeout_that_is_set_later_counts) {
  const auto admin = host();
  ASSERT_EQ(admin->connect(0, nvme::any_controller, 0).status, 0);
  admin->enable();
  Command set;
  set.opcode = nvme::opcode::set_features;
  set.cdw10 = 0x0F;
  set.cdw11 = 1000;
  EXPECT_EQ(admin->run(set).status, 0);
  clock.advance(1100ms);
  EXPECT_TRUE(admin->ended());
}

TEST_F(SubsystemTest, losing_an_io_queue_ends_nothing_and_losing_the_admin_queue_ends_all) {
  auto admin = host();
  const auto id = static_cast<uint16_t>(admin->connect(0, nvme::any_controller, 0).result);
  admin->enable();
  auto io = host();
  EXPECT_EQ(io->connect(1, id, 0).status, 0);
  io.reset();
  Command keep_alive;
  keep_alive.opcode = nvme::opcode::keep_alive;
  EXPECT_EQ(admin->run(keep_alive).status, 0);
  io = host();
  EXPECT_EQ(io->connect(1, id, 0).status, 0);
  admin.reset();
  EXPECT_TRUE(io->ended());
  EXPECT_EQ(subsystem.controllers(), 0u);
}

TEST_F(SubsystemTest, controllers_are_limited_and_come_free_again) {
  std::vector<std::unique_ptr<HostEnd>> hosts;
  for (int i = 0; i < 32; ++i) {
    hosts.push_back(host());
    ASSERT_EQ(hosts.back()->connect(0, nvme::any_controller, 0).status, 0);
  }
  const auto late = host();
  EXPECT_EQ(late->connect(0, nvme::any_controller, 0).status, nvme::status::connect_controller_busy);
  hosts.pop_back();
  late->receive();
  EXPECT_EQ(late->connect(0, nvme::any_controller, 0).status, 0);
}

// The host may still read why; but not for ever.
TEST_F(SubsystemTest, a_fault_is_told_and_the_connection_closed_soon) {
  const auto end = host();
  ASSERT_EQ(end->connect(0, nvme::any_controller, 0).status, 0);
  end->initialize();
  end->receive();
  ASSERT_TRUE(end->term);
  EXPECT_EQ(end->term->error, nvme_tcp::FatalError::sequence);
  EXPECT_EQ(subsystem.controllers(), 0u) << "the association is over at once";
  end->initialize();  // whatever comes now is not looked at
  end->receive();
  clock.advance(3s);
  EXPECT_TRUE(end->ended());
}

}  // namespace
}  // namespace nvsock::csd
