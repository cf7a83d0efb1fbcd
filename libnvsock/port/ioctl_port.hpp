// Passthrough by ioctl: blocking calls on threads of their own.
//
// Each command in flight occupies a thread that nothing can interrupt, not even SIGKILL (Linux 5.10-6.12:
// nvme_submit_user_cmd waits uninterruptibly). Threads are started on demand, at most
// DriverQueue::max_in_flight of them.
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <string>

#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/port/nvme_driver.hpp"

namespace nvsock {

// `why` this way was taken, for describe(); empty: it was asked for. The loop must outlive the port.
std::unique_ptr<CommandPort> make_ioctl_port(asio::io_context& loop,
                                             std::shared_ptr<const ControllerFile> controller,
                                             std::string why = {});

}  // namespace nvsock
