// The embedded drive behind a command port: no transport at all, only the two queues of NVMe.
#include "libnvsock/port/emulated_port.hpp"

#include <optional>

#include "csd/drive.hpp"
#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/nvme/completion_delivery.hpp"
#include "libnvsock/port/fault_port.hpp"

namespace nvsock {
namespace {

class EmulatedPort final : public FallibleDrive, private csd::CompletionQueue {
 public:
  EmulatedPort(asio::io_context& loop, const csd::DriveOptions& options, csd::NetworkNamespace where)
      : drive_(std::in_place, loop, options, std::move(where), static_cast<csd::CompletionQueue&>(*this)) {}

  void submit(Command& command) override { drive_->submit(command); }

  void ring() override {
    drive_->ring();
    flush();
  }

  bool stop() override {
    drive_.reset();
    completed_.clear();
    return true;
  }

  void reset(bool restart) override {
    drive_->reset(restart);
    completed_.clear();
  }

  PortTraits traits() const override {
    return {.ordered = true,
            .max_in_flight = UINT32_MAX,
            .max_blocking = UINT32_MAX,
            .max_abandoned = 1024,  // 4 MiB of pages: here a lost command costs nothing else
            .max_reads_per_stream = 256};
  }

  std::string describe() const override { return "emulated drive"; }
  Delivery delivery() const override { return drive_ ? drive_->delivery() : Delivery{}; }

 private:
  void post(Command& command) override { completed_.push(command); }
  void flush() override {
    completed_.deliver([this] {
      if (client_ != nullptr) client_->on_batch_end();
    });
  }

  CompletionDelivery completed_;
  std::optional<csd::Drive> drive_;  // last: its end completes commands, which need the queue
};

// A controller that was reset is back within this; long enough to be seen as not live.
constexpr auto reset_outage = std::chrono::milliseconds(100);
constexpr auto leases_gone = 6;

struct LoopClock {
  AsioClock clock;
};

class FaultyPort final : private LoopClock, public FaultPort {
 public:
  FaultyPort(asio::io_context& loop, const EmulatedAddress& address, std::unique_ptr<FallibleDrive> drive,
             Random random)
      : LoopClock{AsioClock(loop)}, FaultPort(clock, Random(random.next()), std::move(drive)) {
    if (address.faults.seed) faults = mixed_faults(random);
    add(address.faults.reset_every, HardFault::reset, reset_outage);
    add(address.faults.restart_every, HardFault::restart, reset_outage);
    add(address.faults.gone_every, HardFault::removal, leases_gone * address.drive.lease);
  }

 private:
  void add(uint64_t bytes, HardFault kind, Clock::Duration outage) {
    if (bytes > 0) faults.every.push_back({.bytes = bytes, .kind = kind, .outage = outage});
  }
};

}  // namespace

Result<std::unique_ptr<CommandPort>> open_emulated_port(asio::io_context& loop,
                                                        const EmulatedAddress& address) {
  Result<csd::NetworkNamespace> where = csd::NetworkNamespace::open(address.drive.netns);
  if (!where) return where.error();
  auto port = std::make_unique<EmulatedPort>(loop, address.drive, std::move(*where));
  if (!address.faults.any()) return std::unique_ptr<CommandPort>(std::move(port));
  return std::unique_ptr<CommandPort>(
      std::make_unique<FaultyPort>(loop, address, std::move(port), Random(address.faults.seed.value_or(0))));
}

}  // namespace nvsock
