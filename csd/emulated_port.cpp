// The embedded drive behind a command port: no transport at all, only the two queues of NVMe.
#include "libnvsock/emulated_port.hpp"

#include <optional>

#include "csd/drive.hpp"

namespace nvsock {
namespace {

class EmulatedPort final : public CommandPort, private csd::CompletionQueue {
 public:
  EmulatedPort(asio::io_context& loop, const EmulatedDriveOptions& options, csd::NetworkNamespace where)
      : drive_(std::in_place, loop, options, std::move(where), static_cast<csd::CompletionQueue&>(*this)) {}

  void submit(Command& command) override { drive_->submit(command); }

  void ring() override {
    drive_->ring();
    flush();
  }

  bool stop() override {
    drive_.reset();
    completed_ = {};
    return true;
  }

  PortTraits traits() const override {
    return {.ordered = true,
            .max_in_flight = UINT32_MAX,
            .max_blocking = UINT32_MAX,
            .max_abandoned = 1024,  // 4 MiB of pages: here a lost command costs nothing else
            .max_reads_per_stream = 256};
  }

  std::string describe() const override { return "emulated drive"; }

 private:
  void post(Command& command) override { completed_.push(command); }

  // Completions may submit and ring again; the outermost call delivers what that completes.
  void flush() override {
    if (delivering_) return;
    delivering_ = true;
    while (!completed_.empty()) {
      while (!completed_.empty()) {
        Command& command = completed_.pop();
        command.done(command);
      }
      if (client_ != nullptr) client_->on_batch_end();
    }
    delivering_ = false;
  }

  CommandQueue completed_;
  bool delivering_ = false;
  std::optional<csd::Drive> drive_;  // last: its end completes commands, which need the queue
};

}  // namespace

Result<std::unique_ptr<CommandPort>> open_emulated_port(asio::io_context& loop,
                                                        const EmulatedDriveOptions& options) {
  Result<csd::NetworkNamespace> where = csd::NetworkNamespace::open(options.netns);
  if (!where) return where.error();
  return std::unique_ptr<CommandPort>(std::make_unique<EmulatedPort>(loop, options, std::move(*where)));
}

}  // namespace nvsock
