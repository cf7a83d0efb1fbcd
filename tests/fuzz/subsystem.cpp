// A CSD on the network, with hosts that do what they like: bytes, PDUs and commands of any kind, connections
// that come and go, and time. What it answers are well-formed PDUs with right digests.
//
// Input: steps (see step()).
#include "csd/target/subsystem.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "tests/fuzz/fuzz.hpp"
#include "tests/sim/virtual_clock.hpp"

namespace {

using namespace nvsock;
using fuzz::check;
using fuzz::Input;
using nvme_tcp::From;
using nvme_tcp::PduType;

constexpr char nqn[] = "nqn.csd";
constexpr size_t max_hosts = 4;

// Nothing is ever reached; what services do is the business of drive_v2.
class NoServices final : public csd::ServiceFactory {
  struct Nothing final : csd::Service {
    ssize_t receive(std::span<uint8_t>, bool&) override { return -EAGAIN; }
    ssize_t send(std::span<const uint8_t>) override { return -EAGAIN; }
    void await_readable() override {}
    void await_writable() override {}
    void shut_down_sending() override {}
    void close_in_order() override {}
    relay_v2::Opened addresses() const override { return {}; }
  };
  std::unique_ptr<csd::Service> connect(csd::Client, const relay_v2::Target&,
                                        csd::Service::Observer&) override {
    return std::make_unique<Nothing>();
  }
  void observe(csd::Service&, csd::Service::Observer&) override {}
  Result<std::unique_ptr<csd::ServiceListener>> listen(const relay_v2::Target&, int,
                                                       csd::ServiceListener::Observer&) override {
    return Error{EADDRINUSE, "refused"};
  }
};

// A host's connection, well-behaved as far as the input lets it.
class Host final : private nvme_tcp::PduReceiver::Handler {
 public:
  explicit Host(csd::Subsystem& subsystem) : receiver_(From::controller, *this) {
    int ends[2];
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "a socket pair");
    fd_ = ends[0];
    subsystem.add(ends[1], {.text = "host", .origin = "origin"});
  }
  ~Host() { close(fd_); }

  void initialize(nvme_tcp::Digests digests) {
    uint8_t out[nvme_tcp::max_header_size];
    send({out, encode(nvme_tcp::IcReq{.digests = digests}, out)});
    digests_ = digests;
    receiver_.set_digests(digests);
  }
  void capsule(const Command& command, const nvme::DataPointer& where, std::span<const uint8_t> data) {
    uint8_t out[nvme_tcp::max_header_size];
    send({out, nvme_tcp::encode_capsule_cmd(command, ++cid_, where, static_cast<uint32_t>(data.size()),
                                            digests_, out)});
    send_data(data);
  }
  void transfer(const nvme_tcp::Data& data, std::span<const uint8_t> bytes) {
    uint8_t out[nvme_tcp::max_header_size];
    send({out, encode(data, From::host, digests_, out)});
    send_data(bytes);
  }
  // A host that does not read is one of the things that happen; so are bytes that find no room.
  void send(std::span<const uint8_t> bytes) {
    static_cast<void>(::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
  }
  void receive() {
    uint8_t bytes[65536];
    for (ssize_t size; (size = recv(fd_, bytes, sizeof bytes, MSG_DONTWAIT)) > 0;)
      receiver_.consume({bytes, static_cast<size_t>(size)});
  }

  std::span<const uint8_t> data() const { return buffer_; }  // that came last

  std::vector<nvme_tcp::R2t> asked;  // not answered yet
  uint16_t controller = 0;

 private:
  void send_data(std::span<const uint8_t> data) {
    send(data);
    if (data.empty() || !digests_.data) return;
    uint8_t digest[nvme_tcp::digest_size];
    nvme_tcp::store_digest(data, digest);
    send(digest);
  }
  bool on_pdu(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header,
              std::span<uint8_t>& data) override {
    check(checked.data <= csd::max_transfer, "no more data comes than was asked for");
    if (checked.type == PduType::r2t) asked.push_back(nvme_tcp::parse_r2t(header));
    if (checked.type == PduType::capsule_resp)
      controller = static_cast<uint16_t>(nvme::parse_completion(nvme_tcp::completion_of(header)).result);
    buffer_.resize(checked.data);
    data = buffer_;
    return true;
  }
  bool on_data(bool digest_right) override {
    check(digest_right, "data digests are right");
    return true;
  }
  void on_fault(const nvme_tcp::Fault&) override { check(false, "what comes back is well-formed"); }

  int fd_;
  nvme_tcp::PduReceiver receiver_;
  nvme_tcp::Digests digests_;
  uint16_t cid_ = 0;
  std::vector<uint8_t> buffer_;
};

struct World {
  World()
      : storage(std::move(*csd::Namespace::open(loop, "", 1 << 20))),
        subsystem(loop, clock, services, *storage, {.nqn = nqn, .hosts = {}, .tls = {}, .log = {}}) {}

  void settle() {
    for (int i = 0; i < 4; ++i) {
      loop.restart();
      loop.poll();
    }
  }

  sim::VirtualClock clock;
  asio::io_context loop;
  NoServices services;
  std::unique_ptr<csd::Namespace> storage;
  csd::Subsystem subsystem;
  std::unique_ptr<Host> hosts[max_hosts];
  uint16_t controller = 0;
};

void connect(World& world, Host& host, Input& input) {
  Command command;
  encode(nvme::Connect{.queue = static_cast<uint16_t>(input.below(3)),
                       .queue_size = static_cast<uint16_t>(input.below(140)),
                       .keep_alive_ms = uint32_t{1000} * input.number<uint8_t>()},
         command);
  uint8_t data[nvme::connect_data_size];
  const bool admin = command.cdw10 >> 16 == 0;
  const uint8_t which = input.number<uint8_t>();
  encode(nvme::ConnectData{.controller = admin ? nvme::any_controller : world.controller,
                           .subsystem = (which & 3) == 3 ? nvme::discovery_nqn : std::string_view(nqn),
                           .host = (which & 4) != 0 ? "nqn.a" : "nqn.b"},
         data);
  host.capsule(command, {.kind = nvme::DataPointer::Kind::in_capsule, .length = sizeof data}, data);
  world.settle();
  host.receive();
  if (admin) world.controller = host.controller;
}

// A session that another host may have as well, by a secret that is right or not.
void attach(World& world, Host& host, Input& input) {
  Command command;
  command.data_length = relay_v2::capability_page_size;
  encode(relay_v2::Call{.function = relay_v2::function::capabilities}, command);
  host.capsule(command, {.length = command.data_length}, {});
  world.settle();
  host.receive();
  const auto page = relay_v2::parse_capabilities(host.data());
  if (!page) return;
  uint8_t data[relay_v2::session_request_size];
  encode(relay_v2::SessionRequest{.resume = input.below(2) != 0,
                                  .features = input.number<uint8_t>(),
                                  .epoch = page->epoch,
                                  .key = {.handle = 1 + input.below(3), .secret = {input.number<uint8_t>()}}},
         data);
  command.data_length = sizeof data;
  encode(relay_v2::Call{.function = relay_v2::function::attach}, command);
  host.capsule(command, {.kind = nvme::DataPointer::Kind::in_capsule, .length = sizeof data}, data);
}

void command(World& world, Host& host, Input& input) {
  constexpr uint8_t opcodes[] = {0x00, 0x01, 0x02, 0x06, 0x08, 0x09, 0x0A,
                                 0x0C, 0x18, 0x7F, 0xC0, 0xC1, 0xC2};
  Command command;
  command.opcode = opcodes[input.below(std::size(opcodes))];
  command.nsid = input.number<uint8_t>() & 0x0f;
  command.cdw10 = input.number<uint32_t>();
  for (uint32_t* word : {&command.cdw11, &command.cdw12, &command.cdw13})
    *word = input.below(4) == 0 ? input.number<uint32_t>() : input.number<uint8_t>();
  command.cdw14 = input.number<uint8_t>();
  const bool relay = command.opcode >= 0xC0;
  if (relay && command.cdw12 % 8 == relay_v2::function::attach) return attach(world, host, input);
  if (relay && input.below(8) != 0) {  // such as may reach a session
    const uint32_t sizes[] = {0, 64, 4096, 131072};
    command.nsid = 0;
    command.data_length = sizes[input.below(4)];
    encode(relay_v2::Call{.function = static_cast<uint8_t>(command.cdw12 % 8),
                          .handle = 1 + input.below(3),
                          .sequence = command.cdw13,
                          .wait_ms = input.number<uint8_t>()},
           command);
    if (command.opcode == relay_v2::opcode::to_host || command.data_length == 0)
      return host.capsule(command, {.length = command.data_length}, {});
  }
  if (input.below(2) != 0) {
    const auto data = input.bytes(input.number<uint16_t>() & 0x3ff);
    if (relay) command.cdw10 = static_cast<uint32_t>(data.size() / 4);
    host.capsule(command,
                 {.kind = nvme::DataPointer::Kind::in_capsule, .length = static_cast<uint32_t>(data.size())},
                 data);
  } else {
    host.capsule(command, {.length = input.number<uint32_t>() & 0x3ffff}, {});
  }
}

void answer(Host& host, Input& input) {
  if (host.asked.empty()) return;
  const nvme_tcp::R2t request = host.asked.back();
  host.asked.pop_back();
  const uint32_t wrong = input.below(8) == 0 ? input.number<uint8_t>() : 0;
  const std::vector<uint8_t> bytes(std::min<uint32_t>(request.length, csd::max_transfer), 'h');
  const size_t first = std::min<size_t>(bytes.size() - 1, input.number<uint16_t>()) & ~size_t{3};
  nvme_tcp::Data data{.cid = request.cid, .tag = static_cast<uint16_t>(request.tag ^ wrong)};
  if (first > 0) {
    data.length = static_cast<uint32_t>(first);
    host.transfer(data, std::span(bytes).first(first));
  }
  data.offset = static_cast<uint32_t>(first);
  data.length = static_cast<uint32_t>(bytes.size() - first);
  data.last = true;
  host.transfer(data, std::span(bytes).subspan(first));
}

void step(World& world, Input& input) {
  std::unique_ptr<Host>& host = world.hosts[input.below(max_hosts)];
  const size_t what = input.below(10);
  if (!host || what == 0) {
    host = std::make_unique<Host>(world.subsystem);
    if (input.below(16) == 0) return;
    const uint8_t digests = input.number<uint8_t>();
    return host->initialize({.header = (digests & 1) != 0, .data = (digests & 2) != 0});
  }
  switch (what) {
    case 1:
      return connect(world, *host, input);
    case 2: {
      Command command;
      nvme::encode_property_set({.offset = nvme::property::cc, .value = input.number<uint16_t>() | 1u},
                                command);
      return host->capsule(command, {}, {});
    }
    case 3:
      return host->send(input.bytes(input.number<uint8_t>()));
    case 4:
      host.reset();
      return;
    case 5:
      world.clock.step();
      return;
    case 6:
      world.settle();
      host->receive();
      return answer(*host, input);
    default:
      return command(world, *host, input);
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  World world;
  while (!input.empty()) {
    step(world, input);
    if (input.below(2) != 0) world.settle();
  }
  world.settle();
  for (const auto& host : world.hosts) {
    if (host) host->receive();
  }
  for (auto& host : world.hosts) host.reset();
  world.settle();
  check(world.subsystem.controllers() == 0, "associations end with their connections");
  return 0;
}
