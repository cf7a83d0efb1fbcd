// The preload shim in a process of ours. Threads: before others start.
#pragma once

#include <dlfcn.h>

namespace nvsock {

// A shell with LD_PRELOAD=libnvsock.so passes the shim on, and what is the way to the drive, or the drive
// itself, would then connect through its own mount. From here on its hooks do nothing.
inline void disarm_preload_shim() {
  if (void* symbol = dlsym(RTLD_DEFAULT, "nvsock_bypass")) reinterpret_cast<void (*)(int)>(symbol)(1);
}

}  // namespace nvsock
