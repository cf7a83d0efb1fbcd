// Socket options, of sockets and of mount files alike. Which are carried from one to the
// other is libnvsock/socket/option_table.hpp's to say.
//
// Threads: any, signal handlers too. Nothing blocks. Errors are errno, as getsockopt(2) has it.
#pragma once

#include <sys/socket.h>

#include <cstddef>

#include "libnvsock/socket/option_table.hpp"

namespace nvsock::preload {

// getsockopt() and setsockopt() without the question whose it is. REQUIRES: is_ours(fd).
int get_option(int fd, int level, int name, void* value, socklen_t* size);
int set_option(int fd, int level, int name, const void* value, socklen_t size);

// The options a program set on one descriptor, on their way to the one that takes its place.
class SavedOptions {
 public:
  // Takes each option that differs between `fd` (a socket, or ours) and `untouched`, a new socket of the
  // same kind: what was never set stays with the drive's defaults, and costs no call.
  void collect(int fd, int untouched);

  // Sets them on `fd`. What it does not know, it does without.
  void apply(int fd) const;

 private:
  struct Option {
    int level, name;
    socklen_t size;
    unsigned char value[largest_option];
  };
  Option options_[count_carried()];
  std::size_t count_ = 0;
};

}  // namespace nvsock::preload
