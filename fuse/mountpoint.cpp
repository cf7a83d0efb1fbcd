#include "fuse/mountpoint.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "libnvsock/base/mount_table.hpp"

namespace csdfs {
namespace {

// Holds the directory, or the root of the mount that is topmost on it, without opening anything: O_PATH asks
// no daemon.
constexpr int held = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

std::string name_of(int fd) {
  return "/proc/self/fd/" + std::to_string(fd);
}

// The mount that a descriptor is on; -1: the kernel does not tell.
int mount_of(int fd) {
  struct statx about {};
  // Of a mount that is dead, or whose daemon this process is, nothing else may be asked.
  if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &about) != 0 ||
      (about.stx_mask & STATX_MNT_ID) == 0)
    return -1;
  return static_cast<int>(about.stx_mnt_id);
}

}  // namespace

nvsock::Result<Mountpoint> Mountpoint::open(const std::string& path) {
  const int fd = ::open(path.c_str(), held);
  if (fd >= 0) return Mountpoint(path, fd);
  const int code = errno;
  const std::string place = "mountpoint " + path;
  if (code == ENOTDIR) return nvsock::Error{code, place + " is not a directory"};
  return nvsock::Error{code, place + ": " + std::strerror(code)};
}

Mountpoint::Mountpoint(Mountpoint&& other) noexcept
    : replaced(other.replaced),
      path_(std::move(other.path_)),
      directory_(std::exchange(other.directory_, -1)) {}

std::string Mountpoint::descriptor() const {
  return name_of(directory_);
}

std::string Mountpoint::place() const {
  char place[PATH_MAX];
  const ssize_t size = directory_ < 0 ? -1 : readlink(descriptor().c_str(), place, sizeof place);
  return size < 0 ? path_ : std::string(place, static_cast<size_t>(size));
}

nvsock::Result<void> Mountpoint::unmount() {
  const std::string where = place();
  const int below = mount_of(directory_);
  let_go();
  const auto table = nvsock::mount_table();
  const auto ours = std::ranges::find_if(table, [&](const nvsock::MountEntry& entry) {
    return entry.parent == below && entry.place == where && entry.type == "fuse.csdfs";
  });
  if (ours == table.end()) return {};
  // By another descriptor: what the path leads to is looked at before it is unmounted.
  const int topmost = ::open(where.c_str(), held);
  const int found = mount_of(topmost);
  const bool detached = found == ours->id && umount2(name_of(topmost).c_str(), MNT_DETACH) == 0;
  const int code = found == ours->id ? errno : EBUSY;
  if (topmost >= 0) close(topmost);
  if (detached) return {};
  return nvsock::Error{code, "the mount on " + where + " stays: " +
                                 (found == ours->id ? std::strerror(code) : "something is mounted over it")};
}

void Mountpoint::let_go() {
  if (directory_ >= 0) close(directory_);
  directory_ = -1;
}

}  // namespace csdfs
