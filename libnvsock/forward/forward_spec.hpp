// What leads from this host into the drive, as people write it:
//
//   [BIND:]PORTS:[HOST:]PORTS      PORTS: PORT, or FIRST-LAST[,~PORT or ,~FIRST-LAST ...] less those
//   unix:/PATH:[HOST:]PORT
//   vsock:PORT:[HOST:]PORT
//
// On the left is this host, on the right the drive's inside, as with ssh -L. BIND is an address, or * for all
// of them; without it both loopback addresses, 127.0.0.1 and ::1. Port 0 on the left takes one that is free.
// HOST is what the drive can reach, 127.0.0.1 without it. Two ranges have the same length, and pair up in
// their order.
//
// Pure string work. Threads: any.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "libnvsock/base/result.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock {

// One port or socket of the host.
struct ForwardSpec {
  // What people call it, and what tells it from others: "8080", "0.0.0.0:8080", "*:8080", "unix:/run/web".
  std::string name;
  // What to listen on, as ListeningSocket takes it. Of several, those whose family the host has, all with the
  // first one's port.
  std::vector<std::string> listen;
  Endpoint inside;
};

// The most that one text may ask for: a range is quickly mistyped.
inline constexpr size_t max_forwards = 1024;

// One for each port, at least one. EINVAL with a sentence that quotes what is wrong.
Result<std::vector<ForwardSpec>> parse_forward(std::string_view text);

}  // namespace nvsock
