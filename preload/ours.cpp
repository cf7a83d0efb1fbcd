#include "preload/ours.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>

#include "preload/settings.hpp"

namespace nvsock::preload {
namespace {

constinit std::atomic<bool> bypassed = false;

// The device number (st_dev) of the last mount that answered: a hint that saves a question per call, at
// least 20 us each. Should the number ever pass to another filesystem with inode numbers like ours, recv() on
// one of *its* files reads instead of failing with ENOTSOCK, and nothing else.
constinit std::atomic<dev_t> known_device = 0;

// False: the file cannot be a connection of csdfs. Nearly all others are told by this, without a question to
// whoever serves them. Asked for nothing and told not to synchronise, FUSE answers st_dev, st_ino and the
// type from memory.
bool file_device(int fd, dev_t& device, Kind& kind) {
  struct statx file;
  if (::syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &file) != 0) return false;
  device = makedev(file.stx_dev_major, file.stx_dev_minor);
  kind = (file.stx_ino & NVSOCK_INO_DATAGRAM) != 0 ? Kind::datagram : Kind::stream;
  return S_ISREG(file.stx_mode) && file.stx_dev_major == 0 && (file.stx_ino & NVSOCK_INO_CONNECTION) != 0;
}

}  // namespace

void bypass(bool on) {
  bypassed.store(on, std::memory_order_relaxed);
}

bool hooks_active() {
  return preloaded() && !bypassed.load(std::memory_order_relaxed);
}

bool describe(int fd, nvsock_info& info) {
  const Errno saved;
  dev_t device = 0;
  Kind kind = Kind::none;
  const bool ours =
      file_device(fd, device, kind) && ask(fd, NVSOCK_IOC_INFO, &info) == 0 && info.abi == NVSOCK_ABI_VERSION;
  if (ours) known_device.store(device, std::memory_order_relaxed);
  saved.restore();
  return ours;
}

Kind kind_of(int fd) {
  if (!hooks_active()) return Kind::none;
  const Errno saved;
  dev_t device = 0;
  Kind kind = Kind::none;
  const bool candidate = file_device(fd, device, kind);
  saved.restore();
  if (!candidate) return Kind::none;
  if (device == known_device.load(std::memory_order_relaxed)) return kind;
  nvsock_info info;
  return describe(fd, info) ? kind : Kind::none;
}

long ask(int fd, unsigned long request, void* argument) {
  return ::syscall(SYS_ioctl, fd, request, argument);
}

}  // namespace nvsock::preload
