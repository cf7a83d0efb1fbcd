// The embedded software drive as a command port: `emu:`, for machines without the hardware.
//
// Declared here so that the library can offer it; implemented by csd/, which this folder does not include.
#pragma once

#include <asio/io_context.hpp>
#include <memory>

#include "libnvsock/base/result.hpp"
#include "libnvsock/device_uri.hpp"
#include "libnvsock/nvme/command_port.hpp"

namespace nvsock {

// Fails when the network namespace cannot be opened. The loop must outlive the port.
Result<std::unique_ptr<CommandPort>> open_emulated_port(asio::io_context& loop,
                                                        const EmulatedDriveOptions& options);

}  // namespace nvsock
