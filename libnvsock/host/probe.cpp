#include "libnvsock/host/probe.hpp"

#include <cerrno>
#include <memory>

#include "libnvsock/base/bytes.hpp"
#include "libnvsock/base/quoted.hpp"
#include "libnvsock/nvme/identify.hpp"
#include "libnvsock/relay/v1.hpp"

namespace nvsock {

Result<std::string> probe_csd(asio::io_context& loop, CommandPort& port) {
  const Result<std::string> model = identify_model(loop, port);
  if (!model) return model;

  const auto not_csd = [&](const std::string& why) {
    return Error{ENOTSUP, "is not a CSD (model \"" + *model + "\": " + why + ")"};
  };
  if (model->starts_with(relay_v2::model)) {
    const auto second = probe_second_generation(loop, port);
    if (!second) return not_csd(second.error().text);
    return model;
  }

  auto ask = std::make_unique<PageCommand>();
  ask->opcode = opcode::relay_v1;
  ask->cdw10 = relay_v1::function::identify;
  const Completion completion = run_command(loop, port, ask);
  if (!completion.ok()) return not_csd("the relay command gave " + text_of(completion));
  if (field_text(ask->page()) != relay_v1::identify_text) {
    return not_csd("it does not answer the relay command as one");
  }
  return model;
}

Result<SecondGeneration> probe_second_generation(asio::io_context& loop, CommandPort& port) {
  auto ask = std::make_unique<PageCommand>();
  encode(relay_v2::Call{.function = relay_v2::function::capabilities}, *ask);
  const Completion completion = run_command(loop, port, ask);
  if (!completion.ok()) return Error{ENOTSUP, "the capability command gave " + text_of(completion)};
  const auto page = relay_v2::parse_capabilities(ask->page());
  if (!page) return Error{ENOTSUP, "no capability page"};
  if (page->lowest_version > relay_v2::version || page->highest_version < relay_v2::version) {
    return Error{ENOTSUP, "the drive speaks versions " + std::to_string(page->lowest_version) + " to " +
                              std::to_string(page->highest_version)};
  }
  SecondGeneration found{.capabilities = *page, .vendor = printable(page->vendor)};
  found.capabilities.vendor = {};
  return found;
}

}  // namespace nvsock
