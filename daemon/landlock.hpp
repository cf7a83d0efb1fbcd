// Which files a daemon may still open once it has started: rules of Landlock (Linux 5.13), for itself and
// without privileges. Nothing is written, made or started any more; what is open already stays so.
//
// A process with such rules can neither mount nor unmount, whatever its capabilities (landlock(7)): csdfs,
// which unmounts at its end, has none. Where the kernel has less than is asked for, or no Landlock at all,
// there is less protection, and no error. Builds with sanitizers, or that count coverage, have none: those
// write files.
#pragma once

#include <string>
#include <vector>

#include "libnvsock/base/result.hpp"

namespace nvsock::daemon {

struct Reach {
  std::vector<std::string> read{};       // files, and folders with all below; what is not there is left out
  std::vector<std::string> remove_in{};  // folders in which, and below which, files may be removed
  bool listens = false;                  // on TCP sockets that are not yet bound (since Linux 6.7)
};

// The version of Landlock's interface that is used; 0: there is none.
int landlock_version();

// REQUIRES: one thread, and no_new_privs or CAP_SYS_ADMIN.
Result<void> restrict_reach(const Reach& reach);

}  // namespace nvsock::daemon
