// Commands of start-up, before an event loop serves anything: one at a time, run to its end.
//
// Threads: the loop's. Blocks, running the loop.
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <span>
#include <string>

#include "libnvsock/base/buffer.hpp"
#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/command_port.hpp"

namespace nvsock {

// A command with a page of data of its own, zeros at first.
class PageCommand : public Command {
 public:
  PageCommand();
  std::span<const uint8_t> page() const { return {page_.data(), page_size}; }
  bool answered() const { return answered_; }

 private:
  const BufferRef page_;
  bool answered_ = false;
};

// Runs the command, for at most 30 s: then the completion is ETIMEDOUT, and the command, null from then on,
// is left to the drive with its memory, for good.
Completion run_command(asio::io_context& loop, CommandPort& port, std::unique_ptr<PageCommand>& command);

// What became of a command that failed: "Connection timed out", "status 001h".
std::string text_of(const Completion& failed);

// Reads Identify Controller and returns the model, printable. On failure the sentence starts after the
// device's name. Blocks for at most 30 s.
Result<std::string> identify_model(asio::io_context& loop, CommandPort& port);

}  // namespace nvsock
