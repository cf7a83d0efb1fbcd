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
  HostEnd(Subsystem& subsystem, asio::io_context& loop, std::string origin)
      : loop_(loop), receiver_(From::controller, *this) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    peer_ = test::Peer(ends[0]);
    connection_ = subsystem.add(ends[1], {.text = "host", .origin = std::move(origin)});
  }

  void initialize() {
    uint8_t out[nvme_tcp::max_header_size];
    send({out, encode(nvme_tcp::IcReq{}, out)});
  }
  // Returns the completion, or one of status FFFFh if there is none yet.
  nvme::CompletionEntry run(const Command& command, std::span<const uint8_t> data = {},
                            uint32_t to_host = 0) {
    uint8_t out[nvme_tcp::max_header_size];
    const nvme::DataPointer where{.kind = nvme::DataPointer::Kind::in_capsule,
                                  .length = static_cast<uint32_t>(data.size())};
    const nvme::DataPointer from =
        to_host == 0 ? nvme::DataPointer{}
                     : nvme::DataPointer{.kind = nvme::DataPointer::Kind::transport, .length = to_host};
    const size_t size = nvme_tcp::encode_capsule_cmd(command, ++cid_, data.empty() ? from : where,
                                                     static_cast<uint32_t>(data.size()), {}, out);
    send({out, size});
    if (!data.empty()) send(data);
    completion_ = {.status = 0xffff};
    receive();
    return completion_;
  }
  nvme::CompletionEntry connect(uint16_t queue, uint16_t controller, uint32_t keep_alive_ms,
                                std::string_view host = "nqn.host", std::string_view of = nqn) {
    Command command;
    encode(nvme::Connect{.queue = queue, .queue_size = 32, .keep_alive_ms = keep_alive_ms}, command);
    uint8_t data[nvme::connect_data_size];
    encode(nvme::ConnectData{.controller = controller, .subsystem = of, .host = host}, data);
    return run(command, data);
  }
  std::optional<relay_v2::Capabilities> capabilities() {
    Command command;
    command.data_length = relay_v2::capability_page_size;
    encode(relay_v2::Call{.function = relay_v2::function::capabilities}, command);
    buffer_.clear();
    EXPECT_EQ(run(command, {}, relay_v2::capability_page_size).status, 0);
    return relay_v2::parse_capabilities(buffer_);
  }
  nvme::CompletionEntry attach(uint64_t number, bool resume = false) {
    const auto page = capabilities();
    if (!page) return {.status = 0xffff};
    uint8_t data[relay_v2::session_request_size];
    encode(relay_v2::SessionRequest{.resume = resume, .epoch = page->epoch, .key = {.handle = number + 1}},
           data);
    Command command;
    command.data_length = sizeof data;
    encode(relay_v2::Call{.function = relay_v2::function::attach}, command);
    return run(command, data);
  }
  nvme::CompletionEntry detach(uint64_t number) {
    Command command;
    encode(relay_v2::Call{.function = relay_v2::function::detach, .handle = number + 1}, command);
    return run(command);
  }
  std::vector<uint8_t> log_page(uint8_t id, uint32_t size) {
    Command command;
    command.opcode = nvme::opcode::get_log_page;
    command.cdw10 = id | (size / 4 - 1) << 16;
    buffer_.clear();
    return run(command, {}, size).status == 0 ? buffer_ : std::vector<uint8_t>();
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
    if (checked.data > 0) buffer_.resize(checked.data);
    data = std::span(buffer_).first(checked.data);
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
  explicit SubsystemTest(std::vector<std::string> listed = {})
      : storage(std::move(*Namespace::open(loop, "", 1 << 20))),
        subsystem(loop, clock, services, *storage,
                  {.nqn = nqn,
                   .hosts = std::move(listed),
                   .tls = {},
                   .log = [this](LogLevel, const std::string& text) { logged.push_back(text); }}) {}

  std::unique_ptr<HostEnd> host(std::string origin = "origin") {
    auto end = std::make_unique<HostEnd>(subsystem, loop, std::move(origin));
    end->initialize();
    return end;
  }

  // The status of a Connect of the admin queue. Queues that were accepted are held.
  uint16_t connect(const std::string& name, std::string origin = "", uint32_t keep_alive_ms = 0) {
    auto end = host(origin.empty() ? name : std::move(origin));
    const uint16_t status = end->connect(0, nvme::any_controller, keep_alive_ms, name).status;
    if (status == 0) held.push_back(std::move(end));
    return status;
  }
  // Takes the places that everybody may have, with as few hosts as can.
  void fill() {
    for (int i = 0; i < 32; ++i) ASSERT_EQ(connect("nqn.fill" + std::to_string(i / 8)), 0);
  }

  std::vector<std::string> logged;
  test::ManualClock clock;
  asio::io_context loop;  // holds connections, and they timers
  test::FakeServices services;
  std::unique_ptr<Namespace> storage;
  Subsystem subsystem;
  std::vector<std::unique_ptr<HostEnd>> held;  // last: their connections are the loop's
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
    const std::string name = "nqn." + std::to_string(i);
    hosts.push_back(host(name));
    ASSERT_EQ(hosts.back()->connect(0, nvme::any_controller, 0, name).status, 0);
  }
  const auto late = host();
  const auto refused = late->connect(0, nvme::any_controller, 0);
  EXPECT_EQ(refused.status, nvme::status::connect_controller_busy);
  EXPECT_FALSE(refused.do_not_retry);
  hosts.pop_back();
  late->receive();
  EXPECT_EQ(late->connect(0, nvme::any_controller, 0).status, 0);
}

TEST_F(SubsystemTest, one_host_does_not_take_all_controllers) {
  for (int i = 0; i < 40; ++i)
    EXPECT_EQ(connect("nqn.greedy", "a" + std::to_string(i)),
              i < 8 ? 0 : nvme::status::connect_controller_busy);
  EXPECT_EQ(connect("nqn.other"), 0);
  EXPECT_EQ(
      logged[8],
      "host: host \"nqn.greedy\" gets no controller, it has 8 already; controllers: 8 of \"nqn.greedy\"");
}

TEST_F(SubsystemTest, one_origin_does_not_take_all_controllers_by_names_that_it_makes_up) {
  for (int i = 0; i < 40; ++i)
    EXPECT_EQ(connect("nqn.invented" + std::to_string(i), "one"),
              i < 16 ? 0 : nvme::status::connect_controller_busy);
  EXPECT_EQ(connect("nqn.other", "another"), 0);
}

TEST_F(SubsystemTest, a_host_that_has_a_controller_finds_a_place_in_a_full_target) {
  ASSERT_EQ(connect("nqn.known"), 0);
  for (int i = 0; i < 31; ++i) ASSERT_EQ(connect("nqn.fill" + std::to_string(i / 8)), 0);
  EXPECT_EQ(connect("nqn.stranger"), nvme::status::connect_controller_busy);
  EXPECT_EQ(
      logged.back(),
      "host: host \"nqn.stranger\" gets no controller, the target is full; controllers: 8 of \"nqn.fill0\", "
      "8 of \"nqn.fill1\", 8 of \"nqn.fill2\", 7 of \"nqn.fill3\" and those of 1 others");
  EXPECT_EQ(connect("nqn.known"), 0);
}

TEST_F(SubsystemTest, a_host_that_has_a_session_finds_a_place_in_a_full_target) {
  ASSERT_EQ(connect("nqn.known"), 0);
  held[0]->enable();
  ASSERT_EQ(held[0]->attach(1).status, 0);
  held.clear();
  fill();
  EXPECT_EQ(connect("nqn.stranger"), nvme::status::connect_controller_busy);
  EXPECT_EQ(connect("nqn.known"), 0);
}

class SubsystemWithHostsTest : public SubsystemTest {
 protected:
  SubsystemWithHostsTest() : SubsystemTest({"nqn.a", "nqn.b", "nqn.c", "nqn.d", "nqn.e"}) {}
};

TEST_F(SubsystemWithHostsTest, hosts_that_are_listed_have_a_reserve_and_no_limit_of_origin) {
  for (const char* name : {"nqn.a", "nqn.b", "nqn.c", "nqn.d"}) {
    for (int i = 0; i < 8; ++i) ASSERT_EQ(connect(name, "one"), 0);
  }
  // Whoever looks for the subsystem need not be listed.
  auto discovery = host();
  EXPECT_EQ(discovery->connect(0, nvme::any_controller, 0, "nqn.stranger", nvme::discovery_nqn).status,
            nvme::status::connect_controller_busy);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(connect("nqn.e", "one"), 0);
  EXPECT_EQ(connect("nqn.e", "one"), nvme::status::connect_controller_busy);
}

TEST_F(SubsystemTest, the_host_that_was_idle_for_longest_makes_room_after_10_minutes) {
  fill();
  Command command;
  command.opcode = nvme::opcode::keep_alive;
  clock.advance(5min);
  for (size_t i = 1; i < held.size(); ++i) held[i]->run(command);
  clock.advance(4min + 50s);
  EXPECT_EQ(connect("nqn.late"), nvme::status::connect_controller_busy);
  clock.advance(20s);
  EXPECT_EQ(connect("nqn.late"), 0);
  EXPECT_TRUE(held[0]->ended());
  EXPECT_FALSE(held[1]->ended());
  EXPECT_EQ(connect("nqn.later"), nvme::status::connect_controller_busy);
}

// What Linux leaves is an admin queue that nobody uses, under an I/O queue that is busy.
TEST_F(SubsystemTest, a_host_that_uses_its_io_queue_is_not_idle) {
  fill();
  held[0]->enable();
  const auto io = host();
  ASSERT_EQ(io->connect(1, 1, 0, "nqn.fill0").status, 0);
  clock.advance(9min);
  Command flush;
  flush.nsid = 1;
  io->run(flush);
  clock.advance(2min);
  EXPECT_EQ(connect("nqn.late"), 0);
  EXPECT_FALSE(held[0]->ended());
  EXPECT_FALSE(io->ended());
}

TEST_F(SubsystemTest, one_host_does_not_take_all_sessions) {
  ASSERT_EQ(connect("nqn.greedy"), 0);
  ASSERT_EQ(connect("nqn.other"), 0);
  for (const auto& end : held) end->enable();
  const uint16_t full = status::vendor_errno(ENOMEM);
  for (uint8_t i = 0; i < 20; ++i) EXPECT_EQ(held[0]->attach(i).status, i < 8 ? 0 : full);
  EXPECT_EQ(logged.back(),
            "host \"nqn.greedy\" gets no relay session, it has 8 already; relay sessions: "
            "8 of \"nqn.greedy\"");
  EXPECT_EQ(held[1]->attach(100).status, 0);
  EXPECT_EQ(held[0]->attach(3).status, 0) << "one that it has";
  clock.advance(1h);
  EXPECT_EQ(held[0]->attach(50).status, 0) << "leases are over";
}

TEST_F(SubsystemTest, a_session_is_its_hosts_own) {
  ASSERT_EQ(connect("nqn.victim"), 0);
  ASSERT_EQ(connect("nqn.thief"), 0);
  for (const auto& end : held) end->enable();
  ASSERT_EQ(held[0]->attach(1).status, 0);
  EXPECT_EQ(held[1]->attach(1, true).status, status::vendor_errno(ESTALE));
  EXPECT_EQ(held[1]->detach(1).status, 0) << "as of any that it does not have";
  EXPECT_EQ(held[0]->attach(1, true).status, 0);
}

TEST_F(SubsystemTest, the_effects_log_names_the_relays_opcodes_and_no_other_vendor_commands) {
  ASSERT_EQ(connect("nqn.a"), 0);
  held[0]->enable();
  const std::vector<uint8_t> page = held[0]->log_page(0x05, 4096);
  ASSERT_EQ(page.size(), 4096u);
  for (unsigned opcode = 0xC0; opcode < 256; ++opcode)
    EXPECT_EQ(page[4 * opcode] & 1, opcode <= 0xC2 ? 1 : 0) << opcode;
  EXPECT_EQ(page[4 * nvsock::opcode::identify] & 1, 1);
  EXPECT_EQ(page[1024 + 4 * nvme::opcode::write], 3) << "it changes data";
}

TEST_F(SubsystemTest, hosts_that_have_a_session_find_a_place_where_others_do_not) {
  for (const char* name : {"nqn.a", "nqn.b", "nqn.c", "nqn.late"}) {
    ASSERT_EQ(connect(name), 0);
    held.back()->enable();
  }
  for (uint8_t i = 0; i < 16; ++i) ASSERT_EQ(held[i / 7]->attach(i).status, 0);
  EXPECT_EQ(held[3]->attach(100).status, status::vendor_errno(ENOMEM));
  EXPECT_EQ(held[0]->attach(101).status, 0);
}

TEST_F(SubsystemTest, a_queue_that_was_disconnected_is_closed_soon_and_outlives_its_controller) {
  auto admin = host();
  const auto id = static_cast<uint16_t>(admin->connect(0, nvme::any_controller, 0).result);
  admin->enable();
  const auto io = host();
  ASSERT_EQ(io->connect(1, id, 0).status, 0);
  Command disconnect;
  disconnect.opcode = nvme::opcode::fabrics;
  disconnect.nsid = nvme::fabrics_type::disconnect;
  EXPECT_EQ(io->run(disconnect).status, 0);
  admin.reset();
  Command flush;
  flush.nsid = 1;
  EXPECT_EQ(io->run(flush).status, nvme::status::sequence_error);
  EXPECT_EQ(subsystem.controllers(), 0u);
  EXPECT_FALSE(io->ended());
  clock.advance(3s);
  EXPECT_TRUE(io->ended());
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
