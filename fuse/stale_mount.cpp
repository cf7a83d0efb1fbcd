#include "fuse/stale_mount.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "libnvsock/base/mount_table.hpp"

namespace csdfs {
namespace {

// For the daemon of a mount to say what its root is, which a live one does at once, on a loaded machine too.
constexpr std::chrono::milliseconds patience{3000};

// The type of the topmost mount on an absolute path.
std::string mounted_type(const std::string& path) {
  std::string type;
  for (nvsock::MountEntry& entry : nvsock::mount_table()) {
    if (entry.place == path) type = std::move(entry.type);
  }
  return type;
}

// PATH without symbolic links. Works on a dead mount as well: reading a link asks the daemon for nothing
// when the place is a mount's root.
nvsock::Result<std::string> absolute(const std::string& path) {
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved) != nullptr) return std::string(resolved);
  const int code = errno;
  return nvsock::Error{code, "mountpoint " + path + ": " + std::strerror(code)};
}

bool detach(const std::string& path) {
  if (umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return true;
  if (errno != EPERM) return false;
  const pid_t child = fork();
  if (child == 0) {
    execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", path.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

// What stat(2) of a mount says, as an errno or 0. Its daemon may have been stopped and never answer
// (ETIMEDOUT): another process asks, and can be left behind. It is killed; where the daemon had begun to
// answer not even that helps, until the daemon goes on.
int look_at_mount(const std::string& path) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return errno;
  const pid_t child = fork();
  if (child == 0) {
    struct stat about {};
    const int said = stat(path.c_str(), &about) == 0 ? 0 : errno;
    _exit(write(ends[1], &said, sizeof said) == sizeof said ? 0 : 1);
  }
  int said = child < 0 ? errno : ETIMEDOUT;
  close(ends[1]);
  if (child > 0) {
    pollfd answer{.fd = ends[0], .events = POLLIN, .revents = 0};
    const bool told = poll(&answer, 1, static_cast<int>(patience.count())) > 0 &&
                      read(ends[0], &said, sizeof said) == sizeof said;
    if (!told) kill(child, SIGKILL);
    waitpid(child, nullptr, told ? 0 : WNOHANG);
  }
  close(ends[0]);
  return said;
}

bool is_dead(int look) {
  return look == ENOTCONN || look == ECONNABORTED;
}

// Why what is mounted there is not replaced.
nvsock::Error in_the_way(const std::string& place, const std::string& type, int look) {
  if (look == ETIMEDOUT) {
    return {EBUSY,
            "the mount on " + place + ", of " + type +
                ", does not answer, as if its daemon were stopped; end that, or take the mount away with "
                "umount -l"};
  }
  if (look == 0) return {EBUSY, "mountpoint " + place + " already holds a csdfs; unmount it first"};
  if (!is_dead(look)) return {look, "mountpoint " + place + ": " + std::strerror(look)};
  return {EBUSY, "the dead mount on " + place + " is not of csdfs but of " + type + "; unmount it first"};
}

}  // namespace

bool remove_dead_mount(const std::string& path) {
  struct stat about {};
  return mounted_type(path) == "fuse.csdfs" && stat(path.c_str(), &about) != 0 && errno == ENOTCONN &&
         detach(path);
}

nvsock::Result<Mountpoint> prepare_mountpoint(const std::string& path) {
  const nvsock::Result<std::string> result = absolute(path);
  if (!result) return result.error();
  const std::string& place = *result;
  bool replaced = false;
  while (true) {
    const std::string type = mounted_type(place);
    if (!type.starts_with("fuse")) break;
    const int look = look_at_mount(place);
    if (look == 0 && type != "fuse.csdfs") break;
    if (!is_dead(look) || type != "fuse.csdfs") return in_the_way(place, type, look);
    if (!detach(place)) {
      const int code = errno;
      return nvsock::Error{code, "the dead mount on " + place + " cannot be removed: " + std::strerror(code)};
    }
    replaced = true;
  }
  nvsock::Result<Mountpoint> mountpoint = Mountpoint::open(place);
  if (mountpoint) mountpoint->replaced = replaced;
  return mountpoint;
}

}  // namespace csdfs
