// The first generation's firmware: what the drive does with Identify and the relay commands, on real sockets.
//
// Two ways to behave:
//  - Firmware::shipped, as the firmware in the field: a connect or a write to a peer that does not read
//  stalls
//    every command of the drive, every failure is status 06h, and a reset by the peer leaves the relay's
//    reads uncompleted for ever;
//  - otherwise as the protocol is meant: relays do not disturb each other and failures name their cause
//    (status code type 7h, the code an errno).
//
// Threads: event loop only. Never blocks.
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <vector>

#include "csd/base/completion_queue.hpp"
#include "csd/base/drive_options.hpp"
#include "csd/sockets/netns.hpp"
#include "csd/v1/relay.hpp"
#include "libnvsock/nvme/command.hpp"

namespace nvsock::csd {

class RelayFirmware {
 public:
  RelayFirmware(asio::io_context& loop, const DriveOptions& options,
                std::shared_ptr<const NetworkNamespace> where, CompletionQueue& completions);
  ~RelayFirmware();

  void submit(Command& command) { submitted_.push(command); }
  void ring();  // serves what was submitted, in order

  // --- for relays ---
  asio::io_context& loop() { return loop_; }
  bool shipped() const { return firmware_ == Firmware::shipped; }
  void complete(Command& command, uint16_t status);
  void flush() { completions_.flush(); }
  void opened(Relay& relay, Command& open, int error);
  void writes_moved(Relay& relay);

 private:
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
  const Firmware firmware_;
  const std::shared_ptr<const NetworkNamespace> where_;
  CompletionQueue& completions_;
  CommandQueue submitted_;
  std::vector<std::shared_ptr<Relay>> relays_;   // by descriptor; null: free
  std::vector<std::shared_ptr<Relay>> touched_;  // relays that got reads in this ring
  const Relay* stalled_by_ = nullptr;            // shipped: nothing else is served until this one moved
};

}  // namespace nvsock::csd
