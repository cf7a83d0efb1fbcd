// The real port and the real libnvme over a controller that is ours: this file takes the place of ioctl(2)
// and answers what the kernel's NVMe driver would. Needs root for the device node.
#include "libnvsock/port/ioctl_port.hpp"

#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdarg>
#include <cstring>
#include <functional>
#include <mutex>
#include <optional>

#include "libnvsock/device.hpp"
#include "libnvsock/relay/v1.hpp"
#include "libnvsock/relay/v2.hpp"
#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;
using test::expect_sentence;

bool is_read(const nvme_passthru_cmd& command) {
  return command.opcode == opcode::relay_v1 && command.cdw10 == relay_v1::function::comm &&
         command.cdw11 == relay_v1::comm_read;
}

// The driver's side of ioctl(2), on the port's threads.
class Driver {
 public:
  // A status (0: success) or a negative errno. Runs one at a time.
  using Answer = std::function<int(nvme_passthru_cmd&)>;
  using Holds = std::function<bool(const nvme_passthru_cmd&)>;

  void reset(Answer answer, Holds holds) {
    const std::lock_guard lock(mutex_);
    answer_ = std::move(answer);
    holds_ = std::move(holds);
    seen_.clear();
    permits_ = held_ = peak_ = 0;
  }
  int serve(int fd, nvme_passthru_cmd& command) {
    std::unique_lock lock(mutex_);
    fd_ = fd;
    seen_.push_back(command);
    changed_.notify_all();
    if (holds_ && holds_(command)) {
      peak_ = std::max(peak_, ++held_);
      changed_.wait(lock, [&] { return permits_ > 0; });
      --permits_;
      --held_;
      changed_.notify_all();
    }
    const int outcome = answer_ ? answer_(command) : 0;
    if (outcome >= 0) return outcome;
    errno = -outcome;
    return -1;
  }
  void let_go(unsigned commands) {
    const std::lock_guard lock(mutex_);
    permits_ += commands;
    changed_.notify_all();
  }
  void let_go_locked() { ++permits_, changed_.notify_all(); }  // REQUIRES: called from an Answer
  [[nodiscard]] bool await_held(unsigned count) {
    return await([&] { return held_ == count; });
  }
  [[nodiscard]] bool await_seen(size_t count) {
    return await([&] { return seen_.size() >= count; });
  }
  unsigned peak() const {
    const std::lock_guard lock(mutex_);
    return peak_;
  }
  std::vector<nvme_passthru_cmd> seen() const {
    const std::lock_guard lock(mutex_);
    return seen_;
  }
  int fd() const {
    const std::lock_guard lock(mutex_);
    return fd_;
  }

 private:
  bool await(const std::function<bool()>& done) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, test::patience, done);
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Answer answer_;
  Holds holds_;
  std::vector<nvme_passthru_cmd> seen_;
  unsigned permits_ = 0;
  unsigned held_ = 0;
  unsigned peak_ = 0;
  int fd_ = -1;
};

Driver& driver() {
  static auto* const instance = new Driver;  // threads of the port may outlive main()
  return *instance;
}

}  // namespace
}  // namespace nvsock

// Visible to libnvme.so, which finds it before the C library's.
extern "C" __attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  if (request != NVME_IOCTL_ADMIN_CMD) return static_cast<int>(syscall(SYS_ioctl, fd, request, argument));
  return nvsock::driver().serve(fd, *static_cast<nvme_passthru_cmd*>(argument));
}

namespace nvsock {
namespace {

// No controller has such a number; tests that run at the same time have each their own.
const std::string name = "nvme" + std::to_string(100'000'000 + getpid());
const std::string path = "/dev/" + name;
const std::string uri = path + "?passthrough=ioctl";

struct PortCommand : Command {
  BufferRef page;
  bool completed = false;
};

class IoctlPortTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "mknod needs root";
    driver().reset({}, {});
  }
  void TearDown() override {
    driver().let_go(1000);
    port.reset();
    device.reset();
    EXPECT_TRUE(driver().await_held(0));
  }

  // Calls `open` while the node exists: a test that dies leaves nothing behind.
  template <typename Open>
  auto with_node(Open open) {
    unlink(path.c_str());
    EXPECT_EQ(mknod(path.c_str(), S_IFCHR | 0600, makedev(1, 3)), 0) << std::strerror(errno);
    auto result = open();
    unlink(path.c_str());
    return result;
  }
  void open_port() {
    auto opened = with_node([&] { return open_controller(name); });
    ASSERT_TRUE(opened) << opened.error().text;
    port = make_ioctl_port(loop, std::move(*opened));
  }
  auto open_device() {
    return with_node([&] { return Device::open(loop, uri, {}); });
  }

  PortCommand& make(uint32_t cdw10, uint32_t cdw11 = 0) {
    // Threads that are stuck use commands after everything else is gone.
    static auto* const commands = new std::vector<std::unique_ptr<PortCommand>>;
    static auto* const pool = new BufferPool(page_size, 64);
    PortCommand& command = *commands->emplace_back(std::make_unique<PortCommand>());
    command.page = pool->take();
    command.opcode = opcode::relay_v1;
    command.cdw10 = cdw10;
    command.cdw11 = cdw11;
    command.data = command.page.data();
    command.data_length = page_size;
    command.timeout = 1h;
    command.done = [](Command& done) { static_cast<PortCommand&>(done).completed = true; };
    return command;
  }
  PortCommand& make_read() {
    PortCommand& command = make(relay_v1::function::comm, relay_v1::comm_read);
    command.may_block = true;
    return command;
  }
  PortCommand& make_close() { return make(relay_v1::function::close); }

  PortCommand& send(PortCommand& command) {
    port->submit(command);
    port->ring();
    return command;
  }
  bool run_until(const std::function<bool()>& done) { return test::run_until(loop, done); }
  const Completion& run(PortCommand& command) {
    send(command);
    EXPECT_TRUE(run_until([&] { return command.completed; }));
    return command.completion;
  }

  asio::io_context loop;
  std::unique_ptr<CommandPort> port;
  std::unique_ptr<Device> device;
};

TEST_F(IoctlPortTest, a_command_reaches_the_driver_field_by_field) {
  open_port();
  PortCommand& command = make(10, 11);
  command.nsid = 9;
  command.cdw12 = 12;
  command.cdw13 = 13;
  command.cdw14 = 14;
  command.cdw15 = 15;
  command.timeout = 123456ms;
  run(command);
  ASSERT_EQ(driver().seen().size(), 1u);
  const nvme_passthru_cmd seen = driver().seen()[0];
  EXPECT_EQ(seen.opcode, 0xc0);
  EXPECT_EQ(seen.flags, 0);
  EXPECT_EQ(seen.nsid, 9u);
  EXPECT_EQ(seen.cdw10, 10u);
  EXPECT_EQ(seen.cdw11, 11u);
  EXPECT_EQ(seen.cdw12, 12u);
  EXPECT_EQ(seen.cdw13, 13u);
  EXPECT_EQ(seen.cdw14, 14u);
  EXPECT_EQ(seen.cdw15, 15u);
  EXPECT_EQ(seen.addr, reinterpret_cast<uintptr_t>(command.data));
  EXPECT_EQ(seen.data_len, 4096u);
  EXPECT_EQ(seen.metadata_len, 0u);
  EXPECT_EQ(seen.timeout_ms, 123456u);
}

TEST_F(IoctlPortTest, a_status_passes_through_without_the_flags_around_it) {
  driver().reset([](nvme_passthru_cmd&) { return 0x4000 | 0x2000 | 0x1800 | 0x76f; }, {});  // DNR, More, CRD
  open_port();
  const Completion& completion = run(make_close());
  EXPECT_EQ(completion.error, 0);
  EXPECT_EQ(completion.status, 0x76f);
  EXPECT_EQ(status::errno_of(completion.status), ECONNREFUSED);
}

TEST_F(IoctlPortTest, an_errno_passes_through) {
  open_port();
  for (const int code : {ENODEV, EINTR, EPERM, ENOMEM}) {
    driver().reset([code](nvme_passthru_cmd&) { return -code; }, {});
    const Completion& completion = run(make_close());
    EXPECT_EQ(completion.error, code);
    EXPECT_FALSE(completion.ok());
  }
}

TEST_F(IoctlPortTest, the_result_and_the_data_pass_through) {
  driver().reset(
      [](nvme_passthru_cmd& command) {
        command.result = 0xfedcba98;
        std::memset(reinterpret_cast<void*>(command.addr), 0x5a, command.data_len);
        return 0;
      },
      {});
  open_port();
  PortCommand& command = make_close();
  EXPECT_EQ(run(command).dw0, 0xfedcba98);
  EXPECT_TRUE(command.completion.ok());
  EXPECT_EQ(std::count(command.page.data(), command.page.data() + 4096, 0x5a), 4096);
}

TEST_F(IoctlPortTest, reads_that_wait_leave_threads_for_a_close) {
  driver().reset({}, is_read);
  open_port();
  constexpr unsigned more = 8;
  std::vector<PortCommand*> reads;
  for (unsigned i = 0; i < DriverQueue::max_blocking + more; ++i)
    port->submit(*reads.emplace_back(&make_read()));
  port->ring();
  ASSERT_TRUE(driver().await_held(DriverQueue::max_blocking));
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(run(make_close()).ok()) << "every thread sits in a read";
  EXPECT_EQ(driver().peak(), DriverQueue::max_blocking);
  // The others get their turn as reads end.
  driver().let_go(more);
  ASSERT_TRUE(driver().await_seen(reads.size() + 20));
  EXPECT_TRUE(driver().await_held(DriverQueue::max_blocking));
  driver().let_go(DriverQueue::max_blocking);
  ASSERT_TRUE(run_until(
      [&] { return std::all_of(reads.begin(), reads.end(), [](auto* read) { return read->completed; }); }));
  EXPECT_EQ(driver().peak(), DriverQueue::max_blocking);
}

TEST_F(IoctlPortTest, reads_that_are_rung_for_together_wait_side_by_side) {
  driver().reset({}, is_read);
  open_port();
  for (int i = 0; i < 20; ++i) {  // with any number of threads idle
    run(make_close());
    PortCommand& one = make_read();
    PortCommand& two = make_read();
    port->submit(one);
    port->submit(two);
    port->ring();
    ASSERT_TRUE(driver().await_held(2));
    driver().let_go(2);
    ASSERT_TRUE(run_until([&] { return one.completed && two.completed; }));
  }
}

TEST_F(IoctlPortTest, at_most_16_commands_are_with_the_driver) {
  driver().reset({}, [](const nvme_passthru_cmd&) { return true; });
  open_port();
  std::vector<PortCommand*> closes;
  for (unsigned i = 0; i < 40; ++i) port->submit(*closes.emplace_back(&make_close()));
  port->ring();
  ASSERT_TRUE(driver().await_held(DriverQueue::max_in_flight));
  driver().let_go(40);
  ASSERT_TRUE(run_until([&] {
    return std::all_of(closes.begin(), closes.end(), [](auto* close) { return close->completed; });
  }));
  EXPECT_EQ(driver().peak(), DriverQueue::max_in_flight);
}

TEST_F(IoctlPortTest, completions_run_on_the_loop) {
  open_port();
  const PortCommand& command = send(make_close());
  ASSERT_TRUE(driver().await_seen(1));
  EXPECT_FALSE(command.completed) << "the loop has not run";
  EXPECT_TRUE(run_until([&] { return command.completed; }));
}

TEST_F(IoctlPortTest, a_ring_sends_all_that_were_placed) {
  open_port();
  port->submit(make_close());
  port->submit(make_close());
  EXPECT_TRUE(driver().seen().empty());
  port->ring();
  EXPECT_TRUE(driver().await_seen(2));
}

TEST_F(IoctlPortTest, a_close_passes_reads_that_wait_for_a_thread) {
  driver().reset({}, [](const nvme_passthru_cmd&) { return true; });
  open_port();
  for (unsigned i = 0; i < DriverQueue::max_blocking; ++i) port->submit(make_read());
  port->ring();
  ASSERT_TRUE(driver().await_held(DriverQueue::max_blocking));
  send(make_read());
  send(make_close());
  ASSERT_TRUE(driver().await_seen(DriverQueue::max_blocking + 1));
  EXPECT_FALSE(is_read(driver().seen()[DriverQueue::max_blocking]));
}

TEST_F(IoctlPortTest, stop_tells_whether_the_driver_still_holds_a_command) {
  open_port();
  run(make_close());
  EXPECT_TRUE(port->stop());
  driver().reset({}, is_read);
  open_port();
  send(make_read());
  ASSERT_TRUE(driver().await_held(1));
  EXPECT_FALSE(port->stop());
}

TEST_F(IoctlPortTest, a_port_that_goes_leaves_a_stuck_command_alone_and_the_descriptor_open_for_it) {
  driver().reset({}, is_read);
  open_port();
  const PortCommand& read = send(make_read());
  ASSERT_TRUE(driver().await_held(1));
  const int fd = driver().fd();
  port.reset();
  EXPECT_NE(fcntl(fd, F_GETFD), -1);
  driver().let_go(1);
  EXPECT_TRUE(run_until([&] { return fcntl(fd, F_GETFD) == -1; })) << "closed by the last thread";
  EXPECT_FALSE(read.completed) << "nothing completes any more";
}

// --- the whole library over this port ---

// A drive that answers Identify Controller with `model`, and the relay command as told.
Driver::Answer drive(std::string_view model, int relay_outcome, std::string_view relay_text) {
  return [model, relay_outcome, relay_text](nvme_passthru_cmd& command) {
    auto* bytes = reinterpret_cast<char*>(command.addr);
    if (command.opcode == opcode::identify) {
      std::memset(bytes, 0, command.data_len);
      std::memset(bytes + 24, ' ', 40);
      std::copy(model.begin(), model.end(), bytes + 24);
      return 0;
    }
    if (relay_outcome == 0) {
      std::memset(bytes, 0, command.data_len);
      std::copy(relay_text.begin(), relay_text.end(), bytes);
    }
    return relay_outcome;
  };
}

TEST_F(IoctlPortTest, a_drive_that_is_no_csd_is_named_with_its_model) {
  const auto refused = [&](const Driver::Answer& answer) {
    driver().reset(answer, {});
    auto opened = open_device();
    EXPECT_FALSE(opened);
    return opened ? Error{} : opened.error();
  };
  const Error silent = refused(drive("ACME Turbo 9", 0, ""));
  EXPECT_EQ(silent.text,
            uri + " is not a CSD (model \"ACME Turbo 9\": it does not answer the relay command as one)");
  EXPECT_EQ(silent.code, ENOTSUP);
  EXPECT_EQ(refused(drive("ACME Turbo 9", status::invalid_opcode, "")).text,
            uri + " is not a CSD (model \"ACME Turbo 9\": the relay command gave status 001h)");
  EXPECT_EQ(refused(drive("ACME Turbo 9", -EACCES, "")).text,
            uri + " is not a CSD (model \"ACME Turbo 9\": the relay command gave Permission denied)");
  EXPECT_EQ(refused(drive("a\033[2Jb", 0, "This device has computed")).text,
            uri + " is not a CSD (model \"a?[2Jb\": it does not answer the relay command as one)");
}

// As over NVMe/TCP, where the first generation's question cannot be asked.
TEST_F(IoctlPortTest, a_drive_of_the_second_generation_alone_is_known_by_model_and_capability_page) {
  const auto drive_with = [](bool page) {
    return [page](nvme_passthru_cmd& command) {
      auto* bytes = reinterpret_cast<uint8_t*>(command.addr);
      std::memset(bytes, 0, command.data_len);
      if (command.opcode == opcode::identify) {
        std::memcpy(bytes + 24, "nvsock csd 9   ", 15);
        return 0;
      }
      if (command.opcode != relay_v2::opcode::to_host || !page) return int{status::invalid_opcode};
      if (command.cdw12 == relay_v2::function::capabilities)
        encode(relay_v2::Capabilities{}, {bytes, relay_v2::capability_page_size});
      return 0;
    };
  };
  driver().reset(drive_with(true), {});
  const auto opened = open_device();
  ASSERT_TRUE(opened) << opened.error().text;
  EXPECT_EQ((*opened)->model(), "nvsock csd 9");
  EXPECT_EQ((*opened)->dialect(), "v2");
  driver().reset(drive_with(false), {});
  expect_sentence(open_device(),
                  uri + " is not a CSD (model \"nvsock csd 9\": the capability command gave status 001h)");
}

TEST_F(IoctlPortTest, a_drive_that_does_not_identify_itself_is_named) {
  driver().reset([](nvme_passthru_cmd&) { return -EIO; }, {});
  const auto opened = open_device();
  expect_sentence(opened, uri + " Identify Controller failed: ");
  EXPECT_EQ(opened.error().code, EIO);
  EXPECT_EQ(driver().seen().size(), 1u) << "no vendor command for a drive that is not understood";
}

TEST_F(IoctlPortTest, a_device_that_is_missing_or_no_character_device_is_named) {
  unlink(path.c_str());
  const auto missing = Device::open(loop, path, {});
  expect_sentence(missing, "cannot open " + path + ": No such file or directory");
  EXPECT_EQ(missing.error().code, ENOENT);
}

struct Observer final : StreamObserver {
  void on_stream_change(Stream&) override {}
};

// open answers descriptor 3, a read waits until the close, as on a quiet relay.
TEST_F(IoctlPortTest, a_stream_lives_and_ends_while_its_read_waits) {
  const Driver::Answer identify = drive("Linux pci_epf", 0, "This device has compute");
  driver().reset(
      [identify](nvme_passthru_cmd& command) {
        auto* bytes = reinterpret_cast<uint8_t*>(command.addr);
        if (command.opcode == opcode::identify || command.cdw10 == relay_v1::function::identify)
          return identify(command);
        if (command.cdw10 == relay_v1::function::open) relay_v1::store_u32(bytes, 3);
        if (command.cdw10 == relay_v1::function::close) driver().let_go_locked();
        if (is_read(command)) relay_v1::store_u32(bytes, 0);
        return 0;
      },
      is_read);
  auto opened = open_device();
  ASSERT_TRUE(opened) << opened.error().text;
  device = std::move(*opened);
  EXPECT_EQ(device->model(), "Linux pci_epf");
  EXPECT_EQ(device->port(), "ioctl passthrough");

  Observer observer;
  auto stream = device->connect(*parse_endpoint("127.0.0.1:22"), &observer);
  ASSERT_TRUE(stream);
  ASSERT_TRUE(run_until([&] { return (*stream)->state() == Stream::State::established; }));
  ASSERT_TRUE(driver().await_held(1));
  (*stream)->write({{}, reinterpret_cast<const uint8_t*>("hello"), 5});
  ASSERT_TRUE(run_until([&] { return (*stream)->unsent() == 0; }));
  stream->reset();
  ASSERT_TRUE(run_until([&] { return device->counters().in_flight_now == 0; }));
  EXPECT_EQ(device->counters().abandoned_now, 0u);

  for (const nvme_passthru_cmd& command : driver().seen()) {
    EXPECT_NE(command.timeout_ms, 0u) << "the driver's default resets the controller after 60 s";
    EXPECT_EQ(command.data_len, 4096u);
    EXPECT_EQ(command.addr % 4096, 0u);
    EXPECT_EQ(command.nsid, 0u);
  }
  // Identify Controller, "is it a CSD", capabilities, open, read, write, close: in this order but for the
  // read and the write.
  ASSERT_EQ(driver().seen().size(), 7u);
  EXPECT_EQ(driver().seen().front().opcode, 0x06);
  EXPECT_EQ(driver().seen().front().cdw10, 1u) << "CNS: the controller";
  EXPECT_EQ(driver().seen().back().cdw10, relay_v1::function::close);
  EXPECT_EQ(driver().seen().back().cdw13, 3u);
}

}  // namespace
}  // namespace nvsock
