// The embedded software drive as a command port: `emu:`, for machines without the hardware.
//
// The one place where host and drive are one process: this port owns a drive of csd/, which knows nothing of
// ports. With faults, a FaultPort stands in front of it.
// Threads: event loop only.
#pragma once

#include <asio/io_context.hpp>
#include <memory>

#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/port/emulated_address.hpp"

namespace nvsock {

// Fails when the network namespace cannot be opened. The loop must outlive the port.
Result<std::unique_ptr<CommandPort>> open_emulated_port(asio::io_context& loop,
                                                        const EmulatedAddress& address);

}  // namespace nvsock
