// What a daemon gives up once it has what it needs, so that little is left to steal from whoever finds a hole
// in it.
//
// Linux keeps capabilities for each thread, and a thread inherits them when it is made: this has to come
// before any other thread, or that one keeps everything. Sources: capabilities(7), prctl(2).
#pragma once

#include <string>
#include <vector>

#include "libnvsock/base/result.hpp"

namespace nvsock::daemon {

struct Kept {
  std::vector<int> capabilities{};  // CAP_..., of those that the process has
  std::string user{};               // whose the process becomes, groups and all; empty: as it is
  bool setuid_programs = false;     // it has to start some (fusermount3); else no_new_privs, and none works
};

// Gives up every capability but those kept, from the bounding set too where that is allowed, and makes the
// process undumpable: other processes of its user cannot read its keys in /proc or by ptrace(2), and no core
// is written. (LeakSanitizer, which is a debugger, makes it dumpable for as long as it looks.) REQUIRES: one
// thread.
Result<void> drop_privileges(const Kept& kept);

}  // namespace nvsock::daemon
