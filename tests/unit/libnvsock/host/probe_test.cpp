// What a drive says of itself, before it is known to be a good one.
#include "libnvsock/host/probe.hpp"

#include <cstring>

#include "libnvsock/nvme/identify.hpp"
#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

constexpr char red[] = "\x1b[31mred\n\x07";

// Its model and its vendor would colour a terminal.
class ColouredDrive final : public CommandPort {
 public:
  void submit(Command& command) override {
    auto* const page = static_cast<uint8_t*>(command.data);
    if (command.opcode == opcode::identify) {
      constexpr size_t model_offset = 24;
      std::memcpy(page + model_offset, red, sizeof red);
    } else {
      relay_v2::Capabilities capabilities{};
      capabilities.lowest_version = capabilities.highest_version = relay_v2::version;
      capabilities.vendor = red;
      relay_v2::encode(capabilities, {page, page_size});
    }
    command.completion = {};
    command.done(command);
  }
  void ring() override {}
  bool stop() override { return true; }
  PortTraits traits() const override { return {}; }
  std::string describe() const override { return "coloured"; }
};

TEST(Probe, what_a_drive_says_of_itself_is_printable) {
  asio::io_context loop;
  ColouredDrive drive;
  const Result<std::string> model = identify_model(loop, drive);
  ASSERT_TRUE(model);
  EXPECT_EQ(*model, "?[31mred??");
  const Result<SecondGeneration> second = probe_second_generation(loop, drive);
  ASSERT_TRUE(second) << second.error().text;
  EXPECT_EQ(second->vendor, "?[31mred??");
}

}  // namespace
}  // namespace nvsock
