// The first-generation drive under commands no host of ours would send. Every command completes, at the
// latest when the relays close or the port stops, and the drive writes to the buffer of a command and nowhere
// else.
//
// Only a service of the target's own on 127.0.0.1 is ever connected to: an open that names an address and a
// port that the drive would take is turned into one of that service, or of a port where nobody listens.
//
// Input: one byte of options, then steps (see step()).
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "libnvsock/port/emulated_port.hpp"
#include "libnvsock/relay/v1.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace nvsock;
using fuzz::check;
using fuzz::Input;

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

// Two sockets for the life of the process: one listens, one only keeps its port from being used.
class Services {
 public:
  Services() : open_(make(open_port_)), closed_(make(closed_port_)) {
    check(listen(open_, 64) == 0, "listening");
  }

  uint16_t open_port() const { return open_port_; }
  uint16_t closed_port() const { return closed_port_; }
  int accept() const { return accept4(open_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC); }

 private:
  static int make(uint16_t& port) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    check(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0, "a port of our own");
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    return fd;
  }

  uint16_t open_port_ = 0, closed_port_ = 0;
  int open_, closed_;
};

struct alignas(page_size) Page {
  uint8_t bytes[page_size];
};

struct Sent : Command {
  std::unique_ptr<Page> page = std::make_unique<Page>();
  bool completed = false;
};

class Run final : private PortClient {
 public:
  Run(const Services& services, Input input) : services_(services), input_(input) {
    csd::DriveOptions options;
    const uint8_t flags = input_.number<uint8_t>();
    options.firmware = (flags & 1) != 0 ? csd::Firmware::shipped : csd::Firmware::fixed;
    options.relays = 1 + (flags >> 1) % 4;
    auto port = open_emulated_port(loop_, {.drive = options, .faults = {}});
    check(static_cast<bool>(port), "a port without a namespace opens");
    port_ = std::move(*port);
    port_->attach(this);
  }
  ~Run() {
    for (const int fd : peers_) close(fd);
  }

  void go() {
    for (int steps = 0; !input_.empty() && steps < 200; ++steps) step();
    for (uint32_t relay = 0; relay < 4; ++relay) {
      send(relay_v1::function::close, 0, 0, relay, {});
    }
    settle();
    const bool stopped = port_->stop();
    check(stopped, "the emulated drive keeps nothing");
  }

 private:
  void on_batch_end() override {}

  void step() {
    switch (input_.below(12)) {
      case 0:
      case 1:
        return open();
      case 2:
      case 3:
        return send(relay_v1::function::comm, relay_v1::comm_read, 0, descriptor(), {});
      case 4:
      case 5: {
        const uint16_t length = input_.number<uint16_t>();
        const bool in_range = length % 8 != 0;
        return send(relay_v1::function::comm, relay_v1::comm_write, in_range ? 1 + length % 4096 : length,
                    descriptor(), input_.bytes(8));
      }
      case 6:
        return send(relay_v1::function::close, 0, 0, descriptor(), {});
      case 7:
        return anything();
      case 8:
        return port_->ring();
      case 9:
        return settle();
      case 10:
        return service_moves();
      default:
        return service_sends();
    }
  }

  uint32_t descriptor() {
    const uint32_t value = input_.number<uint8_t>();
    return value < 250 ? value % 4 : value == 250 ? UINT32_MAX : value;
  }

  void open() {
    uint8_t buffer[relay_v1::node_size + relay_v1::service_size] = {};
    const size_t kind = input_.below(4);
    if (kind <= 1) {
      relay_v1::encode_open(buffer, "127.0.0.1",
                            std::to_string(kind == 0 ? services_.open_port() : services_.closed_port()));
    } else {
      std::ranges::copy(input_.bytes(kind == 2 ? 32 : relay_v1::node_size), buffer);
      std::ranges::copy(input_.bytes(16), buffer + relay_v1::node_size);
    }
    send(relay_v1::function::open, 0, 0, 0, buffer);
  }

  void anything() {
    Sent& command = make();
    command.opcode = input_.number<uint8_t>();
    command.nsid = input_.number<uint32_t>();
    for (uint32_t* field : {&command.cdw10, &command.cdw11, &command.cdw12, &command.cdw13}) {
      *field = input_.number<uint32_t>();
    }
    if (input_.below(8) == 0) command.data_length = static_cast<uint32_t>(input_.below(256)) * 16;
    std::ranges::copy(input_.bytes(64), command.page->bytes);
    submit(command);
  }

  void send(uint32_t function, uint32_t cdw11, uint32_t cdw12, uint32_t cdw13,
            std::span<const uint8_t> bytes) {
    Sent& command = make();
    command.opcode = opcode::relay_v1;
    command.cdw10 = function;
    command.cdw11 = cdw11;
    command.cdw12 = cdw12;
    command.cdw13 = cdw13;
    std::ranges::copy(bytes, command.page->bytes);
    submit(command);
  }

  Sent& make() {
    Sent& command = *sent_.emplace_back(std::make_unique<Sent>());
    command.data = command.page->bytes;
    command.data_length = page_size;
    command.timeout = std::chrono::hours(24);
    command.done = [](Command& done) {
      auto& own = static_cast<Sent&>(done);
      check(!std::exchange(own.completed, true), "a command completes once");
    };
    return command;
  }

  void submit(Sent& command) {
    if (command.data_length < page_size) {
      // A shorter buffer ends where the sanitizer watches.
      short_buffers_.emplace_back(command.data_length);
      command.data = short_buffers_.back().data();
    } else {
      keep_inside(command.page->bytes);
    }
    port_->submit(command);
    if (input_.below(2) == 0) port_->ring();
  }

  // The drive must not be made to connect to anybody else.
  void keep_inside(uint8_t* bytes) const {
    auto* const fields = reinterpret_cast<char*>(bytes);
    const std::string node(relay_v1::field_text(fields, relay_v1::node_size));
    const std::string service(relay_v1::field_text(fields + relay_v1::node_size, relay_v1::service_size));
    in_addr address{};
    if (inet_pton(AF_INET, node.c_str(), &address) != 1) return;
    if (std::ranges::none_of(service, [](char c) { return c >= '1' && c <= '9'; })) return;
    const bool even = service.size() % 2 == 0;
    const bool ours = service == std::to_string(services_.open_port());
    relay_v1::encode_open(bytes, "127.0.0.1",
                          std::to_string(ours || even ? services_.open_port() : services_.closed_port()));
  }

  void settle() {
    port_->ring();
    for (int i = 0; i < 4; ++i) {
      if (loop_.stopped()) loop_.restart();
      loop_.poll();
      for (int fd = services_.accept(); fd >= 0; fd = services_.accept()) peers_.push_back(fd);
    }
  }

  // Of one connection, or of all at once.
  void service_moves() {
    settle();
    if (peers_.empty()) return;
    const size_t which = input_.below(peers_.size());
    const int fd = peers_[which];
    uint8_t bytes[16 * 1024];
    switch (input_.below(4)) {
      case 0:
        while (recv(fd, bytes, sizeof bytes, 0) > 0) continue;
        return;
      case 1:
        shutdown(fd, SHUT_WR);
        return;
      case 2: {
        const linger at_once{1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        [[fallthrough]];
      }
      default:
        close(fd);
        peers_.erase(peers_.begin() + static_cast<ptrdiff_t>(which));
    }
  }

  void service_sends() {
    settle();
    if (peers_.empty()) return;
    const std::vector<uint8_t> bytes(1 + input_.number<uint16_t>(), 's');
    static_cast<void>(::send(peers_[input_.below(peers_.size())], bytes.data(), bytes.size(), MSG_NOSIGNAL));
  }

  const Services& services_;
  Input input_;
  asio::io_context loop_;
  std::vector<std::unique_ptr<Sent>> sent_;
  std::vector<std::vector<uint8_t>> short_buffers_;
  std::vector<int> peers_;
  std::unique_ptr<CommandPort> port_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Services services;
  Run(services, Input(data, size)).go();
  return 0;
}
