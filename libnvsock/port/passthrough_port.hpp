// A controller of this host through the kernel's NVMe driver, by io_uring where the kernel has it and by
// ioctl where not. Results are the same both ways (libnvsock/port/nvme_driver.hpp). Threads: event loop only.
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <string>

#include "libnvsock/base/log.hpp"
#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/port/controller_address.hpp"

namespace nvsock {

// Opens /dev/NAME; NAME as in "nvme1". Unless told to use ioctl, sends Identify Controller through a ring,
// which blocks, running the loop, for at most 30 s: when that fails and nobody insists on io_uring, ioctl it
// is, and the log and describe() say why. The loop must outlive the port.
Result<std::unique_ptr<CommandPort>> open_passthrough_port(asio::io_context& loop, const std::string& name,
                                                           Passthrough way, const Log& log);

}  // namespace nvsock
