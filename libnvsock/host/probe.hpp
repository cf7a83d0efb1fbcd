// Is this drive a CSD? Two commands that are harmless to any drive.
#pragma once

#include <asio/io_context.hpp>
#include <optional>
#include <string>

#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock {

// Reads Identify Controller. Returns the model. Runs the loop until it is answered, at most 30 s: for
// start-up, before the loop serves anything else. On failure the sentence starts after the device's name.
Result<std::string> identify_model(asio::io_context& loop, CommandPort& port);

// Reads Identify Controller, then asks the first generation's "is it a CSD", or for the capability page where
// the model says that there is one (docs/relay-protocol.md section 10). Returns the model. Runs the
// loop until both are answered, at most 30 s each: for start-up, before the loop serves anything else.
// ENOTSUP, with a sentence that starts after the device's name: the drive is not a CSD.
Result<std::string> probe_csd(asio::io_context& loop, CommandPort& port);

// Which generation a CSD is of: the capability page of the second one, or nothing. One command, harmless to
// the first (docs/relay-protocol.md section 10). `why` says what decided. The page's vendor text is left out.
std::optional<relay_v2::Capabilities> probe_capabilities(asio::io_context& loop, CommandPort& port,
                                                         std::string& why);

}  // namespace nvsock
