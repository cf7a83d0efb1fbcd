// The mountpoint before mounting: what a killed csdfs left there, and whether it can be mounted on.
#pragma once

#include <string>

#include "libnvsock/base/result.hpp"

namespace csdfs {

// Makes PATH absolute and checks that it is a directory. A FUSE mount whose daemon is gone (every access
// answers ENOTCONN) is detached first; *replaced tells. Never waits for a mount that is alive: a live
// csdfs on the same place is refused (EBUSY).
nvsock::Result<std::string> prepare_mountpoint(const std::string& path, bool& replaced);

}  // namespace csdfs
