#include "libnvsock/nvme/identify.hpp"

#include <cstdio>
#include <cstring>

#include "libnvsock/base/bytes.hpp"
#include "libnvsock/base/quoted.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;

constexpr auto time_limit = 30s;

// Identify Controller data structure, NVMe Base Specification 2.0 figure 275.
constexpr size_t model_offset = 24;
constexpr size_t model_size = 40;

}  // namespace

PageCommand::PageCommand() : page_(BufferPool(page_size, 0).take()) {
  std::memset(page_.data(), 0, page_size);
  data = page_.data();
  data_length = page_size;
  timeout = 2 * time_limit;  // run_command() gives up first: no timeout of the driver resets the controller
  done = [](Command& command) { static_cast<PageCommand&>(command).answered_ = true; };
}

Completion run_command(asio::io_context& loop, CommandPort& port, std::unique_ptr<PageCommand>& command) {
  port.submit(*command);
  port.ring();
  loop.restart();
  const auto deadline = std::chrono::steady_clock::now() + time_limit;
  while (!command->answered()) {
    if (loop.run_one_until(deadline) == 0 && !command->answered()) {
      static_cast<void>(command.release());
      return {.error = ETIMEDOUT};
    }
  }
  loop.restart();
  return command->completion;
}

std::string text_of(const Completion& failed) {
  if (failed.error != 0) return std::strerror(failed.error);
  char text[16];
  snprintf(text, sizeof text, "status %03xh", failed.status);
  return text;
}

Result<std::string> identify_model(asio::io_context& loop, CommandPort& port) {
  auto identify = std::make_unique<PageCommand>();
  identify->opcode = opcode::identify;
  identify->cdw10 = 1;  // CNS 01h: the controller
  const Completion completion = run_command(loop, port, identify);
  if (!completion.ok()) {
    return Error{completion.error != 0 ? completion.error : EIO,
                 "Identify Controller failed: " + text_of(completion)};
  }
  std::string model = printable(field_text(identify->page().subspan(model_offset, model_size)));
  model.erase(model.find_last_not_of(' ') + 1);
  return model;
}

}  // namespace nvsock
