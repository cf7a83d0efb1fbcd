// Which way to the kernel's driver is taken and what is said about it, and the ring, over device nodes of
// which one takes commands from io_uring (/dev/null's: all succeed and do nothing) and one does not
// (/dev/full's). What a real driver does with them is for tools/vm-test. Needs root for the device nodes.
#include "libnvsock/port/passthrough_port.hpp"

#include <dlfcn.h>
#include <liburing.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "libnvsock/base/buffer.hpp"
#include "libnvsock/device.hpp"
#include "libnvsock/port/nvme_driver.hpp"
#include "libnvsock/port/uring_port.hpp"
#include "tests/unit/support.hpp"

namespace {
int ring_refusal = 0;          // an errno: what setting up a ring ends with
unsigned unknown_flags = 0;    // IORING_SETUP_ that the kernel does not know
unsigned rings = 0;            // asked for
unsigned submit_refusals = 0;  // times that the kernel has no memory to take what is in a ring
}  // namespace

extern "C" __attribute__((visibility("default"))) int io_uring_queue_init_params(
    unsigned entries, io_uring* ring, io_uring_params* parameters) {
  ++rings;
  if (ring_refusal != 0) return -ring_refusal;
  if ((parameters->flags & unknown_flags) != 0) return -EINVAL;
  static const auto real =
      reinterpret_cast<decltype(&io_uring_queue_init_params)>(dlsym(RTLD_NEXT, "io_uring_queue_init_params"));
  return real(entries, ring, parameters);
}

extern "C" __attribute__((visibility("default"))) int io_uring_submit(io_uring* ring) {
  static const auto real = reinterpret_cast<decltype(&io_uring_submit)>(dlsym(RTLD_NEXT, "io_uring_submit"));
  if (submit_refusals == 0) return real(ring);
  --submit_refusals;
  return -EAGAIN;
}

namespace nvsock {
namespace {

using namespace std::chrono_literals;
using test::expect_sentence;

// No controller has such a number; tests that run at the same time have each their own.
const std::string name = "nvme" + std::to_string(100'000'000 + getpid());
const std::string path = "/dev/" + name;
const dev_t null_device = makedev(1, 3);
const dev_t full_device = makedev(1, 7);

struct PortCommand : Command {
  BufferRef page;
  unsigned completed = 0;
};

class PassthroughTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // tools/test demands root, so nothing is left out there.
    if (geteuid() != 0) GTEST_SKIP() << "mknod needs root";
    ring_refusal = 0;
    unknown_flags = rings = submit_refusals = 0;
  }
  void TearDown() override { unlink(path.c_str()); }

  void make_node(dev_t device) {
    unlink(path.c_str());
    ASSERT_EQ(mknod(path.c_str(), S_IFCHR | 0600, device), 0) << std::strerror(errno);
  }
  auto open(Passthrough way) {
    return open_passthrough_port(loop, name, way, [this](LogLevel, const std::string& text) { log += text; });
  }

  asio::io_context loop;
  std::string log;
};

TEST_F(PassthroughTest, a_driver_without_io_uring_is_used_by_ioctl) {
  make_node(full_device);
  const auto port = open(Passthrough::automatic);
  ASSERT_TRUE(port) << port.error().text;
  EXPECT_EQ((*port)->describe(), "ioctl passthrough (no io_uring: the driver takes no commands from it)");
  EXPECT_EQ(log, "commands go to " + path + " by ioctl (no io_uring: the driver takes no commands from it)");
}

TEST_F(PassthroughTest, a_kernel_without_io_uring_is_used_by_ioctl) {
  make_node(null_device);
  for (const auto& [code, why] : {std::pair(ENOSYS, "the kernel has none"),
                                  {EPERM, "sysctl kernel.io_uring_disabled or a seccomp filter forbids it"},
                                  {EINVAL, "the kernel's is older than NVMe passthrough (Linux 5.19)"},
                                  {EMFILE, "Too many open files"}}) {
    ring_refusal = code;
    log.clear();
    const auto port = open(Passthrough::automatic);
    ASSERT_TRUE(port) << port.error().text;
    EXPECT_EQ((*port)->describe(), std::string("ioctl passthrough (no io_uring: ") + why + ")");
    EXPECT_TRUE(log.ends_with(std::string("by ioctl (no io_uring: ") + why + ")")) << log;

    const auto insisted = open(Passthrough::io_uring);
    EXPECT_FALSE(insisted);
    EXPECT_EQ(insisted.error().code, code);
    EXPECT_EQ(insisted.error().text, "cannot use " + path + " by io_uring: " + why +
                                         "; without passthrough=io_uring, ioctl takes its place");
  }
}

TEST_F(PassthroughTest, who_insists_on_io_uring_does_not_get_ioctl) {
  make_node(full_device);
  const auto port = Device::open(loop, path + "?passthrough=io_uring", {});
  expect_sentence(port, "cannot use " + path + " by io_uring: the driver takes no commands from it; ");
  EXPECT_EQ(port.error().code, EOPNOTSUPP);
}

TEST_F(PassthroughTest, who_wants_ioctl_gets_it_without_a_ring) {
  make_node(null_device);
  const auto port = open(Passthrough::ioctl);
  ASSERT_TRUE(port) << port.error().text;
  EXPECT_EQ((*port)->describe(), "ioctl passthrough");
  EXPECT_EQ(log, "");
  EXPECT_EQ(rings, 0u);
}

TEST_F(PassthroughTest, a_device_that_is_missing_is_named_whichever_way) {
  for (const Passthrough way : {Passthrough::automatic, Passthrough::io_uring, Passthrough::ioctl}) {
    const auto port = open(way);
    expect_sentence(port, "cannot open " + path + ": No such file or directory");
    EXPECT_EQ(port.error().code, ENOENT);
  }
  EXPECT_EQ(log, "");
}

// --- the ring ---

// With the flags of Linux 6.1 and with those of 5.19.
class UringPortTest : public PassthroughTest, public ::testing::WithParamInterface<unsigned> {
 protected:
  void SetUp() override {
    PassthroughTest::SetUp();
    if (IsSkipped()) return;
    unknown_flags = GetParam();
    open_ring(null_device);
  }

  void open_ring(dev_t device) {
    make_node(device);
    const auto controller = open_controller(name);
    ASSERT_TRUE(controller) << controller.error().text;
    auto made = make_uring_port(loop, *controller);
    // Containers often forbid it; the kernels of tests/vm have it whatever this one says.
    if (!made) GTEST_SKIP() << "no io_uring: " << made.error().text;
    port = std::move(*made);
    EXPECT_EQ(rings, unknown_flags == 0 ? 1u : 2u);
    rings = 0;
  }

  PortCommand& make() {
    PortCommand& command = *commands.emplace_back(std::make_unique<PortCommand>());
    command.page = pool.take();
    command.data = command.page.data();
    command.data_length = page_size;
    command.timeout = 1h;
    command.done = [](Command& done) { ++static_cast<PortCommand&>(done).completed; };
    return command;
  }
  size_t completed() const {
    size_t count = 0;
    for (const auto& command : commands) count += command->completed;
    return count;
  }

  // The device completes everything at once: what is to come has come.
  void settle() {
    loop.restart();
    for (int i = 0; loop.poll() > 0; ++i) ASSERT_LT(i, 1000) << "the port does not come to rest";
  }

  BufferPool pool{page_size, 64};
  std::vector<std::unique_ptr<PortCommand>> commands;
  std::unique_ptr<CommandPort> port;
};

TEST_P(UringPortTest, every_command_completes_once_and_on_the_loop) {
  for (int i = 0; i < 100; ++i) {
    PortCommand& command = make();
    command.may_block = i % 2 == 0;
    command.completion.error = EIO;
    port->submit(command);
  }
  port->ring();
  EXPECT_EQ(completed(), 0u) << "the loop has not run";
  ASSERT_TRUE(test::run_until(loop, [&] { return completed() >= commands.size(); }));
  settle();
  for (const auto& command : commands) {
    EXPECT_EQ(command->completed, 1u);
    EXPECT_TRUE(command->completion.ok());
  }
}

TEST_P(UringPortTest, a_completion_may_place_the_next_command) {
  struct Chain : PortCommand {
    CommandPort* port = nullptr;
    unsigned left = 1000;
  } chain;
  chain.port = port.get();
  chain.timeout = 1h;
  chain.done = [](Command& done) {
    auto& self = static_cast<Chain&>(done);
    if (--self.left == 0) return;
    self.port->submit(self);
    self.port->ring();
  };
  port->submit(chain);
  port->ring();
  EXPECT_TRUE(test::run_until(loop, [&] { return chain.left == 0; }));
}

TEST_P(UringPortTest, clients_are_told_once_after_completions_that_come_together) {
  struct Client final : PortClient {
    unsigned batches = 0;
    void on_batch_end() override { ++batches; }
  } client;
  port->attach(&client);
  for (int i = 0; i < 10; ++i) port->submit(make());
  port->ring();
  ASSERT_TRUE(test::run_until(loop, [&] { return completed() == 10 && client.batches > 0; }));
  EXPECT_EQ(client.batches, 1u);
}

TEST_P(UringPortTest, what_the_kernel_cannot_take_now_is_offered_again) {
  submit_refusals = 3;
  for (int i = 0; i < 20; ++i) port->submit(make());
  port->ring();
  ASSERT_TRUE(test::run_until(loop, [&] { return completed() == 20; }));
  EXPECT_EQ(submit_refusals, 0u);
}

TEST_P(UringPortTest, an_errno_passes_through) {
  open_ring(full_device);
  port->submit(make());
  port->ring();
  ASSERT_TRUE(test::run_until(loop, [&] { return completed() == 1; }));
  EXPECT_EQ(commands[0]->completion.error, EOPNOTSUPP);
}

TEST_P(UringPortTest, nothing_completes_after_stop_which_knows_that_the_driver_holds_nothing) {
  port->submit(make());
  port->ring();
  EXPECT_TRUE(port->stop());
  settle();
  EXPECT_EQ(completed(), 0u);
}

TEST_P(UringPortTest, a_port_may_go_with_completions_in_its_ring) {
  port->submit(make());
  port->ring();
  port.reset();
  settle();
  EXPECT_EQ(completed(), 0u);
}

TEST_P(UringPortTest, an_idle_port_wakes_nobody) {
  port->submit(make());
  port->ring();
  ASSERT_TRUE(test::run_until(loop, [&] { return completed() == 1; }));
  settle();
  EXPECT_EQ(loop.poll(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Kernels, UringPortTest, ::testing::Values(0u, IORING_SETUP_DEFER_TASKRUN),
                         [](const auto& kernel) { return kernel.param == 0 ? "Linux_6_1" : "Linux_5_19"; });

}  // namespace
}  // namespace nvsock
