// The way to an NVMe/TCP controller: TCP, a unix socket or vsock.
#pragma once

#include <vector>

#include "libnvsock/base/result.hpp"
#include "libnvsock/base/socket_address.hpp"
#include "libnvsock/port/nvme_tcp_address.hpp"

namespace nvsock {

// Of the addresses a host name has, so many are tried.
inline constexpr size_t max_target_addresses = 3;

// Where the target listens: one or more addresses. Blocks while a host name is looked up. Threads: any.
Result<std::vector<SocketAddress>> addresses_of(const NvmeTcpAddress& target);

// Is it another machine's, as far as its address tells? Not: unix sockets, vsock, loopback addresses.
bool leaves_machine(const SocketAddress& address);

// A non-blocking stream socket that is connected or on its way to be: writable then. -1 with errno.
int connect_to(const SocketAddress& address);

}  // namespace nvsock
