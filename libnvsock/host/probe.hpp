// Is this drive a CSD? Two commands that are harmless to any drive.
//
// Threads: the event loop's, before the loop serves anything else: each call runs the loop until it has its
// answer, at most 30 s a command. A command that is not answered by then keeps its memory for good.
#pragma once

#include <asio/io_context.hpp>
#include <string>

#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock {

// Reads Identify Controller. Returns the model. On failure the sentence starts after the device's name.
Result<std::string> identify_model(asio::io_context& loop, CommandPort& port);

// Reads Identify Controller, then asks the first generation's "is it a CSD", or for the capability page where
// the model says that there is one (docs/relay-protocol.md section 10). Returns the model.
// ENOTSUP, with a sentence that starts after the device's name: the drive is not a CSD.
Result<std::string> probe_csd(asio::io_context& loop, CommandPort& port);

struct SecondGeneration {
  relay_v2::Capabilities capabilities;  // without the vendor's text, which lies in the page
  std::string found_by;                 // what decided, for people
};

// Which generation a CSD is of: what a drive of the second one tells of itself, or in a sentence why it is
// taken for the first. One command, harmless to the first (docs/relay-protocol.md section 10).
Result<SecondGeneration> probe_capabilities(asio::io_context& loop, CommandPort& port);

}  // namespace nvsock
