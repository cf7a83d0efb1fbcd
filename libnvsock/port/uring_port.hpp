// Passthrough by io_uring: the event loop places commands in a ring and is woken for completions; no threads.
//
// Linux 6.1 and newer (5.19 and 6.0 too, where each completion interrupts the loop). A ring's memory counts
// as the process's own, not against RLIMIT_MEMLOCK (since 5.12), and the pages of a command are pinned
// without being counted.
//
// A command with the driver cannot be cancelled here either, but nothing waits for it: a killed process is
// gone at once, where one in an ioctl stays until the command completes. The kernel keeps the command's
// pages, its tag and the ring until then, in a worker of its own (io_ring_exit_work), and logs one warning
// when that takes more than five minutes. Only where no tag is free does something of the process wait
// uninterruptibly, a thread that the kernel starts (io-wq); the limits of DriverQueue keep that from
// happening.
#pragma once

#include <asio/io_context.hpp>
#include <memory>

#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/port/nvme_driver.hpp"

namespace nvsock {

// Fails where the kernel has no such rings or forbids them; the sentence goes behind "no io_uring: ". Whether
// the driver takes commands from one, only a command tells. The loop must outlive the port.
Result<std::unique_ptr<CommandPort>> make_uring_port(asio::io_context& loop,
                                                     std::shared_ptr<const ControllerFile> controller);

}  // namespace nvsock
