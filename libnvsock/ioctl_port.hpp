// A controller of this host through the kernel's NVMe driver: blocking ioctls on threads of their own.
//
// Each command in flight occupies a thread that nothing can interrupt, not even SIGKILL (Linux 5.10-6.12:
// nvme_submit_user_cmd waits uninterruptibly). Hence the limits: threads are started on demand, at most
// max_in_flight of them, of which max_blocking may sit in reads; the rest stays free for writes, opens and
// the closes that end those reads. Linux has 28 to 30 admin tags, shared with Identify and friends.
#pragma once

#include <asio/io_context.hpp>
#include <memory>

#include "libnvsock/command_port.hpp"
#include "libnvsock/result.hpp"

namespace nvsock {

inline constexpr unsigned ioctl_max_in_flight = 16;
inline constexpr unsigned ioctl_max_blocking = 12;
inline constexpr unsigned ioctl_max_abandoned =
    8;  // half of the tags we take: the drive needs a reset by then

// Opens /dev/NAME; NAME as in "nvme1". Needs CAP_SYS_ADMIN. The loop must outlive the port.
Result<std::unique_ptr<CommandPort>> open_ioctl_port(asio::io_context& loop, const std::string& name);

}  // namespace nvsock
