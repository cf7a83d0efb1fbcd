// The software CSD: an admin queue whose commands take effect on real sockets.
//
// Speaks the first generation of the relay protocol (csd/v1/relay_firmware.hpp), and with Firmware::second
// the second as well (csd/v2/session_table.hpp). It knows nothing of how commands reach it.
//
// Threads: event loop only. Never blocks.
#pragma once

#include <asio/io_context.hpp>
#include <memory>

#include "csd/base/completion_queue.hpp"
#include "csd/base/drive_options.hpp"
#include "csd/sockets/netns.hpp"
#include "csd/v1/relay_firmware.hpp"
#include "libnvsock/base/undelivered.hpp"
#include "libnvsock/nvme/command.hpp"

namespace nvsock::csd {

class Drive {
 public:
  // The loop and the queue must outlive the drive, whose end completes the commands of the first generation.
  Drive(asio::io_context& loop, const DriveOptions& options, NetworkNamespace where,
        CompletionQueue& completions);
  ~Drive();

  // Places a command; ring() serves what was placed. Those of one generation are served in order.
  void submit(Command& command);
  void ring();
  // The controller is reset: waiting commands of the second generation are forgotten. `restart`: its sessions
  // too, and the epoch is another one. REQUIRES: Firmware::second, and no command of the first generation.
  void reset(bool restart);

  // The first generation tells its host of a write only when the service's socket has it: nothing waits.
  Delivery delivery() const;

 private:
  struct SecondGeneration;

  void start_second_generation();

  asio::io_context& loop_;
  const DriveOptions options_;
  const std::shared_ptr<const NetworkNamespace> where_;
  CompletionQueue& completions_;
  RelayFirmware first_;
  std::unique_ptr<SecondGeneration> second_;  // null: its commands are unknown ones, and answered as such
  CommandQueue for_second_;
};

}  // namespace nvsock::csd
