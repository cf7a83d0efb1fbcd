// The first-generation host against a drive that answers anything, in any order: no answer may make it read
// or write where it must not, use a page the drive has, or deliver bytes that were not sent.
//
// Input: one byte of traits, then steps (see step()).
#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/host/dialect_v1.hpp"
#include "tests/fuzz/held_port.hpp"
#include "tests/fuzz/programs.hpp"

namespace {

using namespace nvsock;
using fuzz::check;
using fuzz::Input;

void examine(const Command& command) {
  check(command.opcode == opcode::relay_v1 && command.data_length == page_size,
        "a command of this generation");
}

class Run final {
 public:
  explicit Run(Input input)
      : input_(input),
        port_(traits(input_), examine),
        dialect_(clock_, port_, {.relays = 3, .log = {}}),
        programs_(input_, SIZE_MAX) {}

  void go() {
    for (int steps = 0; !input_.empty() && steps < 400; ++steps) step();
    programs_.let_go_of_all();
    // A drive that answers at last: everything fails, and nothing is left.
    for (int i = 0; i < 1000 && port_.held() > 0; ++i) {
      port_.complete(0, {.error = ENODEV, .status = 0, .dw0 = 0});
      port_.end_batch();
    }
    loop_.poll();
    check(port_.held() == 0, "a drive that is gone is sent no more");
    check(dialect_.counters().in_flight_now == 0, "commands are counted off");
  }

 private:
  static PortTraits traits(Input& input) {
    const uint8_t flags = input.number<uint8_t>();
    return {.ordered = (flags & 1) != 0,
            .max_in_flight = 16,
            .max_blocking = 3,
            .max_abandoned = 2,
            .max_reads_per_stream = 1u + (flags >> 1) % 4};
  }

  void step() {
    const size_t what = input_.below(8);
    if (what == 0) return programs_.connect(dialect_);
    if (what <= 3) return answer();
    if (what > 4) return programs_.act();
    if (loop_.stopped()) loop_.restart();
    loop_.poll();
  }

  void answer() {
    if (port_.held() == 0) return;
    const size_t which = input_.below(std::min<size_t>(port_.held(), 256));
    Command& command = port_.at(which);
    auto* const page = static_cast<uint8_t*>(command.data);
    Completion completion;
    switch (input_.below(6)) {
      case 0:
        completion.error = 1 + static_cast<int>(input_.below(133));
        break;
      case 1:
        completion.status = input_.number<uint16_t>();
        break;
      case 2:  // a length, or a descriptor, as large as may be
        relay_v1::store_u32(page, input_.number<uint32_t>());
        completion.dw0 = input_.number<uint32_t>();
        break;
      case 3:
        std::ranges::copy(input_.bytes(16), page);
        break;
      default:  // well-formed
        relay_v1::store_u32(page, command.cdw10 == relay_v1::function::comm ? input_.number<uint16_t>() % 4093
                                                                            : input_.number<uint8_t>());
    }
    port_.complete(which, completion);
    if (input_.below(2) == 0) port_.end_batch();
  }

  Input input_;
  asio::io_context loop_;
  AsioClock clock_{loop_};
  fuzz::HeldPort port_;
  DialectV1 dialect_;
  fuzz::Programs programs_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Run(Input(data, size)).go();
  return 0;
}
