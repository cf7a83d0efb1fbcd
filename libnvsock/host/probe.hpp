// Is this drive a CSD, and of which generation? Commands that are harmless to any drive.
//
// Threads: the loop's. Each function blocks, running the loop until the drive has answered, at most 30 s a
// command: for start-up, before the loop serves anything else.
#pragma once

#include <asio/io_context.hpp>
#include <string>

#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock {

// Reads Identify Controller, then asks the first generation's "is it a CSD", or for the capability page where
// the model says that there is one (docs/relay-protocol.md section 10). Returns the model.
// ENOTSUP, with a sentence that starts after the device's name: the drive is not a CSD.
Result<std::string> probe_csd(asio::io_context& loop, CommandPort& port);

// The capability page of a drive of the second generation, and its vendor's text, made printable. ENOTSUP:
// the CSD is of the first, and the sentence says what showed it. One command, harmless to the first (section
// 10).
struct SecondGeneration {
  relay_v2::Capabilities capabilities;  // without the vendor's text, which lies in the page
  std::string vendor;
};
Result<SecondGeneration> probe_second_generation(asio::io_context& loop, CommandPort& port);

}  // namespace nvsock
