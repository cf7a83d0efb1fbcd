// An NVMe/TCP controller of another machine, without the kernel's driver: csdfs is the host.
//
// Theory of operation. A port keeps one connection with one admin queue. Bringing it up takes ICReq, Fabrics
// Connect, enabling the controller and Identify, within `attempt`. When it is lost, or is silent for two
// thirds more than the keep-alive timeout, every command in flight ends with an errno, which means that its
// outcome is unknown; the port connects again, after 20 ms and then ever more up to 1 s, for as long as it
// lives. A target that was given by name is looked up again each time, beside the loop; where that takes more
// than 2 s, the addresses it had are tried meanwhile. Commands submitted meanwhile complete with
// status::host_path_error and did nothing. What a session of the relay protocol does about both is its own
// business (libnvsock/host/session_v2.hpp).
//
// A command that is not complete within its timeout ends the connection, as in Linux. Data goes one way, so
// the first generation of the relay protocol does not work here: such a command ends with ENOTSUP.
//
// Where nobody chose, PDUs carry both digests if they leave this machine without TLS.
//
// When nothing moves, a keep-alive goes out every half timeout; no other timer runs. Threads: event loop
// only.
#pragma once

#include <asio/io_context.hpp>
#include <chrono>
#include <memory>

#include "libnvsock/base/log.hpp"
#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/port/nvme_tcp_address.hpp"

namespace nvsock {

struct NvmeTcpPortOptions {
  std::chrono::milliseconds keep_alive{10'000};  // KATO
  std::chrono::milliseconds attempt{10'000};     // to connect to an address and get a live controller
};

// Connects, and returns when the controller is live. Blocks, running the loop, for at most 30 s: `attempt`
// for each of up to three addresses; looking up a host name comes on top. The loop must outlive the port.
Result<std::unique_ptr<CommandPort>> open_nvme_tcp_port(asio::io_context& loop, const NvmeTcpAddress& target,
                                                        Log log, const NvmeTcpPortOptions& options = {});

}  // namespace nvsock
