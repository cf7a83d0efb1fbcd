// The kernel's table of mounts, /proc/self/mountinfo: asking a path itself could wait for a daemon.
// Blocks for that file alone. Threads: any.
#pragma once

#include <string>
#include <vector>

namespace nvsock {

struct MountEntry {
  int id = 0;
  int parent = 0;     // the mount that it is on
  std::string place;  // where, as this process sees it
  std::string type;
};

// In the order of the kernel: of mounts on the same place, the topmost is the last.
std::vector<MountEntry> mount_table();

}  // namespace nvsock
