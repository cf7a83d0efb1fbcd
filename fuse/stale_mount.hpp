// The mountpoint before mounting: what a killed csdfs left there, and whether it can be mounted on.
// Threads: the main thread, before there is another (it may fork). Blocks for fusermount3, and for the
// daemon of a mount that is there, 3 s.
#pragma once

#include <string>

#include "fuse/mountpoint.hpp"
#include "libnvsock/base/result.hpp"

namespace csdfs {

// Makes PATH absolute and holds it if it is a directory. A mount of csdfs whose daemon is gone (every
// access answers ENOTCONN) is detached first. Those of other FUSE daemons are refused (EBUSY). A live csdfs
// on the same place is refused (EBUSY), and so is any mount whose daemon does not answer, because it is
// stopped.
nvsock::Result<Mountpoint> prepare_mountpoint(const std::string& path);

// Removes what is left on PATH, an absolute one, where somebody aborted our connection to the kernel: a mount
// of csdfs that answers ENOTCONN. False: there is none, because it was unmounted.
bool remove_dead_mount(const std::string& path);

}  // namespace csdfs
