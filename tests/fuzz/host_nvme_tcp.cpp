// The host end of NVMe/TCP against a controller that sends anything: nothing may be written but what commands
// lend, none completes twice, and none is left when the connection is over.
//
// Input: one byte (bits 0 and 1: digests; bit 2: no ICResp is sent for it), then steps (see step()).
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "libnvsock/port/nvme_tcp_queue.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace nvsock;
using namespace nvsock::nvme_tcp;
using fuzz::check;
using fuzz::Input;

constexpr size_t guard = 64;
constexpr uint8_t untouched = 0xA5;
constexpr uint32_t sizes[] = {0, 4, 4096, 8192, 8196, 128 * 1024};

struct Lent : Command {
  bool in_flight = false;
  std::vector<uint8_t> memory;

  void lend(uint8_t code, uint32_t size) {
    memory.assign(size + 2 * guard, untouched);
    static_cast<Command&>(*this) = Command();
    opcode = code;
    data = memory.data() + guard;
    data_length = size;
    timeout = std::chrono::hours(1);
    in_flight = true;
  }
  // What no controller may have changed: the surroundings, what went to it, and what is not lent any more.
  bool kept() const {
    if (memory.empty()) return true;
    const auto is_untouched = [](uint8_t byte) { return byte == untouched; };
    const auto begin = memory.begin() + guard, end = memory.end() - guard;
    const bool filled = in_flight && (opcode & 3) == 2;
    return std::all_of(memory.begin(), begin, is_untouched) && std::all_of(end, memory.end(), is_untouched) &&
           (filled || std::all_of(begin, end, is_untouched));
  }
};

class Run final : private NvmeTcpQueue::Owner {
 public:
  explicit Run(Input input) : input_(input) {
    const auto flags = input_.number<uint8_t>();
    digests_ = {.header = (flags & 1) != 0, .data = (flags & 2) != 0};
    int fds[2];
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0, "there are sockets");
    peer_ = fds[1];
    queue_ = std::make_shared<NvmeTcpQueue>(loop_, digests_, static_cast<NvmeTcpQueue::Owner&>(*this));
    queue_->start(fds[0], make_plain_transport(fds[0]));
    uint8_t out[max_header_size];
    if ((flags & 4) == 0) send({out, encode(IcResp{.digests = digests_, .max_h2c_data = 8192}, out)});
  }
  ~Run() {
    queue_->close();
    close(peer_);
  }

  void go() {
    for (int steps = 0; !input_.empty() && steps < 300; ++steps) {
      turn();
      step();
    }
    shutdown(peer_, SHUT_WR);
    turn();
    turn();
    check(lost_, "the end of a connection is noticed");
    for (const Lent& command : commands_) check(!command.in_flight, "no command is left");
  }

 private:
  void step() {
    uint8_t out[max_header_size];
    switch (input_.below(7)) {
      case 0:
        return submit();
      case 1:
        return send(input_.bytes(input_.number<uint8_t>()));
      case 2: {
        const auto cid = input_.number<uint8_t>();
        const nvme::CompletionEntry entry{.result = input_.number<uint8_t>(), .cid = cid};
        return send({out, encode(entry, digests_, out)});
      }
      case 3: {
        const auto cid = input_.number<uint8_t>();
        const R2t request{
            .cid = cid, .tag = 5, .offset = input_.number<uint32_t>(), .length = input_.number<uint32_t>()};
        return send({out, encode(request, digests_, out)});
      }
      case 4:
        return send_data();
      case 5: {
        uint8_t drained[65536];
        while (recv(peer_, drained, sizeof drained, MSG_DONTWAIT) > 0) continue;
        return;
      }
      default:
        if (!lost_) queue_->fail(ETIMEDOUT, "it is over");
    }
  }

  void submit() {
    constexpr uint8_t opcodes[] = {0xC0, 0xC1, 0xC2};
    const uint8_t code = opcodes[input_.below(3)];
    const uint32_t size = code == 0xC0 ? 0 : sizes[input_.below(std::size(sizes))];
    if (!ready_ || lost_) return;
    const auto free = std::ranges::find_if(commands_, [](const Lent& known) { return !known.in_flight; });
    if (free == commands_.end()) return;
    check(free->kept(), "memory that is not lent stays as it is");
    free->lend(code, size);
    queue_->submit(*free);
    queue_->flush();
  }

  void send_data() {
    const auto cid = input_.number<uint8_t>(), flags = input_.number<uint8_t>();
    const auto offset = input_.number<uint32_t>();
    const std::vector<uint8_t> bytes(1 + input_.number<uint16_t>(), 'd');
    uint8_t out[max_header_size], digest[digest_size];
    const Data data{.cid = cid,
                    .offset = offset,
                    .length = static_cast<uint32_t>(bytes.size()),
                    .last = (flags & 1) != 0,
                    .success = (flags & 2) != 0};
    send({out, encode(data, From::controller, digests_, out)});
    send(bytes);
    store_digest(bytes, digest);
    if (digests_.data) send(digest);
  }

  void send(std::span<const uint8_t> bytes) {
    if (!lost_) static_cast<void>(::send(peer_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
  }
  void turn() {
    loop_.restart();
    loop_.poll();
    for (const Lent& command : commands_) check(command.kept(), "memory that is not lent stays as it is");
  }

  void on_ready() override { ready_ = true; }
  void on_completed(Command& command) override {
    auto& lent = static_cast<Lent&>(command);
    check(lent.in_flight, "a command completes once");
    check(lent.kept(), "only the data of a read is written");
    std::ranges::fill(lent.memory, untouched);  // its owner uses it again
    lent.in_flight = false;
  }
  void on_batch_end() override {}
  void on_lost(const Error& error) override {
    check(!lost_ && error.code != 0 && !error.text.empty(), "a loss is told once");
    lost_ = true;
  }

  Input input_;
  Digests digests_;
  asio::io_context loop_;
  int peer_ = -1;
  std::shared_ptr<NvmeTcpQueue> queue_;
  std::array<Lent, NvmeTcpQueue::slots> commands_;
  bool ready_ = false;
  bool lost_ = false;
};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Run(Input(data, size)).go();
  return 0;
}
