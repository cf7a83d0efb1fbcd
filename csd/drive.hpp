// The software CSD: what the drive does with an admin command, on real sockets.
//
// Speaks the first generation of the relay protocol, and with Firmware::second the second as well
// (csd/v2/session_table.hpp). Of the first, two ways to behave:
//  - Firmware::shipped, as the firmware in the field: a connect or a write to a peer that does not read
//  stalls
//    every command of the drive, every failure is status 06h, and a reset by the peer leaves the relay's
//    reads uncompleted for ever;
//  - otherwise as that protocol is meant: relays do not disturb each other and failures name their cause
//    (status code type 7h, the code an errno).
//
// Threads: event loop only. Never blocks.
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <vector>

#include "csd/base/completion_queue.hpp"
#include "csd/sockets/netns.hpp"
#include "csd/v1/relay.hpp"
#include "libnvsock/device_uri.hpp"
#include "libnvsock/nvme/command.hpp"

namespace nvsock::csd {

class Drive {
 public:
  Drive(asio::io_context& loop, const EmulatedDriveOptions& options, NetworkNamespace where,
        CompletionQueue& completions);
  ~Drive();

  void submit(Command& command) { submitted_.push(command); }
  void ring();  // serves what was submitted, in order
  // The controller is reset: waiting commands of the second generation are forgotten. `restart`: its sessions
  // too, and the epoch is another one. REQUIRES: Firmware::second, and no command of the first generation.
  void reset(bool restart);

  // --- for relays ---
  asio::io_context& loop() { return loop_; }
  bool shipped() const { return options_.firmware == Firmware::shipped; }
  void complete(Command& command, uint16_t status);
  void flush() { completions_.flush(); }
  void opened(Relay& relay, Command& open, int error);
  void writes_moved(Relay& relay);

 private:
  void start_second_generation();
  void dispatch(Command& command);
  void identify_controller(Command& command);
  void identify_csd(Command& command);
  void open(Command& command);
  void close(Command& command);
  void read(Command& command);
  void write(Command& command);
  void refuse_open(Command& command, int cause);
  std::shared_ptr<Relay> find(uint32_t descriptor) const;
  bool next_writes_to(uint32_t descriptor) const;

  asio::io_context& loop_;
  const EmulatedDriveOptions options_;
  const std::shared_ptr<const NetworkNamespace> where_;
  CompletionQueue& completions_;
  CommandQueue submitted_;
  std::vector<std::shared_ptr<Relay>> relays_;   // by descriptor; null: free
  std::vector<std::shared_ptr<Relay>> touched_;  // relays that got reads in this ring
  const Relay* stalled_by_ = nullptr;            // shipped: nothing else is served until this one moved
  struct SecondGeneration;
  std::unique_ptr<SecondGeneration> second_;  // null: an unknown function, answered as such
};

}  // namespace nvsock::csd
