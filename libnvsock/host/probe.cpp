#include "libnvsock/host/probe.hpp"

#include <cstring>
#include <memory>

#include "libnvsock/relay/v1.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;

constexpr auto probe_timeout = 30s;

// Identify Controller data structure, NVMe Base Specification 2.0 figure 275.
constexpr size_t model_offset = 24;
constexpr size_t model_size = 40;

struct Probe : Command {
  bool answered = false;
  BufferRef page;
};

// Runs one command to its end. A command that is not answered in time keeps its memory for good.
Completion run(asio::io_context& loop, CommandPort& port, std::unique_ptr<Probe>& probe) {
  probe->data = probe->page.data();
  probe->data_length = page_size;
  // The loop gives up first, so that no timeout of the driver resets the controller.
  probe->timeout = 2 * probe_timeout;
  probe->done = [](Command& command) { static_cast<Probe&>(command).answered = true; };
  port.submit(*probe);
  port.ring();
  loop.restart();
  const auto deadline = std::chrono::steady_clock::now() + probe_timeout;
  while (!probe->answered) {
    if (loop.run_one_until(deadline) == 0 && !probe->answered) {
      probe.release();
      return {.error = ETIMEDOUT};
    }
  }
  loop.restart();
  return probe->completion;
}

std::string told(const Completion& completion) {
  if (completion.error != 0) return std::strerror(completion.error);
  char text[16];
  snprintf(text, sizeof text, "status %03xh", completion.status);
  return text;
}

}  // namespace

Result<std::string> identify_model(asio::io_context& loop, CommandPort& port) {
  BufferPool pages(page_size, 0);
  auto identify = std::make_unique<Probe>();
  identify->page = pages.take();
  identify->opcode = opcode::identify;
  identify->cdw10 = 1;  // CNS 01h: the controller
  const Completion completion = run(loop, port, identify);
  if (!completion.ok()) {
    return Error{completion.error != 0 ? completion.error : EIO,
                 "Identify Controller failed: " + told(completion)};
  }
  std::string model(
      relay_v1::field_text(reinterpret_cast<const char*>(identify->page.data()) + model_offset, model_size));
  model.erase(model.find_last_not_of(' ') + 1);
  for (char& c : model) c = c >= 0x20 && c < 0x7f ? c : '?';
  return model;
}

Result<std::string> probe_csd(asio::io_context& loop, CommandPort& port) {
  const Result<std::string> identified = identify_model(loop, port);
  if (!identified) return identified;
  const std::string& model = *identified;

  const std::string not_csd = "is not a CSD (model \"" + model + "\": ";
  if (model.starts_with(relay_v2::model)) {
    const Result<SecondGeneration> second = probe_capabilities(loop, port);
    if (!second) return Error{ENOTSUP, not_csd + second.error().text + ")"};
    return model;
  }

  BufferPool pages(page_size, 0);
  auto ask = std::make_unique<Probe>();
  ask->page = pages.take();
  std::memset(ask->page.data(), 0, page_size);
  ask->opcode = opcode::relay_v1;
  ask->cdw10 = relay_v1::function::identify;
  const Completion completion = run(loop, port, ask);
  if (!completion.ok()) return Error{ENOTSUP, not_csd + "the relay command gave " + told(completion) + ")"};
  const auto answer = relay_v1::field_text(reinterpret_cast<const char*>(ask->page.data()), page_size);
  if (answer != relay_v1::identify_text) {
    return Error{ENOTSUP, not_csd + "it does not answer the relay command as one)"};
  }
  return model;
}

Result<SecondGeneration> probe_capabilities(asio::io_context& loop, CommandPort& port) {
  BufferPool pages(page_size, 0);
  auto ask = std::make_unique<Probe>();
  ask->page = pages.take();
  std::memset(ask->page.data(), 0, page_size);
  ask->opcode = relay_v2::opcode::to_host;
  ask->cdw10 = relay_v2::function::capabilities;
  ask->cdw11 = relay_v2::capabilities_cdw11;
  ask->cdw12 = page_size;
  const Completion completion = run(loop, port, ask);
  if (!completion.ok()) return Error{ENOTSUP, "the capability command gave " + told(completion)};
  auto capabilities = relay_v2::parse_capabilities({ask->page.data(), page_size});
  if (!capabilities) return Error{ENOTSUP, "no capability page"};
  if (capabilities->lowest_version > relay_v2::version || capabilities->highest_version < relay_v2::version) {
    return Error{ENOTSUP, "the drive speaks versions " + std::to_string(capabilities->lowest_version) +
                              " to " + std::to_string(capabilities->highest_version)};
  }
  std::string found_by = "capability page of \"" + std::string(capabilities->vendor) + "\"";
  capabilities->vendor = {};
  return SecondGeneration{*capabilities, std::move(found_by)};
}

}  // namespace nvsock
