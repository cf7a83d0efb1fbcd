// Socket options of a connection file: remembered for every process that shares it, and told faithfully.
//
// The two timeouts act on parked reads and writes. The others have no meaning over relays (the drive owns
// the socket) but programs read back what they set, and some give up when that fails.
// Which there are is libnvsock/socket/option_table.hpp's to say. Threads: event loop only.
#pragma once

#include <sys/time.h>

#include <cstdint>
#include <vector>

#include "libnvsock/mount_abi.h"
#include "libnvsock/socket/option_table.hpp"

namespace csdfs {

class SocketOptions {
 public:
  // 0 or an errno, as setsockopt(2).
  int set(const nvsock_option& option);
  // Fills value and length, as getsockopt(2): a shorter length truncates.
  int get(nvsock_option& option) const;

  timeval receive_timeout() const { return timeout(SO_RCVTIMEO); }  // 0: none
  timeval send_timeout() const { return timeout(SO_SNDTIMEO); }

 private:
  struct Entry {
    int32_t level;
    int32_t name;
    uint32_t length;
    uint8_t value[nvsock::largest_option];
  };
  const Entry* find(int32_t level, int32_t name) const;
  timeval timeout(int32_t name) const;

  std::vector<Entry> set_;  // only those set; at most one per known option
};

}  // namespace csdfs
