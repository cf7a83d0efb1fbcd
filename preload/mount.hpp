// Opening connections: MOUNT/tcp/HOST:PORT, and MOUNT/udp/HOST:PORT for datagrams.
//
// Threads: any, signal handlers too.
#pragma once

#include <string_view>

#include "preload/descriptor.hpp"
#include "preload/ours.hpp"

namespace nvsock::preload {

struct Opened {
  Descriptor file;
  int error = 0;         // if `file` is not valid; as connect() tells it
  bool missing = false;  // because there is no mount, or no csdfs behind it
};

// `name` is "tcp/HOST:PORT" or "udp/HOST:PORT"; `flags` is O_NONBLOCK or 0. The file is close-on-exec. Blocks
// as the flags say.
Opened open_connection(std::string_view name, int flags);

// Waits until the connection is established or has failed, for SO_SNDTIMEO at most: the rest of a blocking
// connect(), with its results and errors. REQUIRES: is_ours(fd).
int wait_connected(int fd);

}  // namespace nvsock::preload
