#include "fuse/stale_mount.hpp"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace csdfs {
namespace {

// Undoes the octal escapes of /proc/self/mountinfo (space, tab, newline, backslash).
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      out += static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// The type of the topmost mount on an absolute path, from the kernel's table: asking the path itself
// could wait for a daemon.
std::string mounted_type(const std::string& path) {
  std::ifstream table("/proc/self/mountinfo");
  std::string line, type;
  while (std::getline(table, line)) {
    std::istringstream fields(line);
    std::string skipped, place, field;
    fields >> skipped >> skipped >> skipped >> skipped >> place;
    if (unescaped(place) != path) continue;
    while (fields >> field && field != "-") continue;
    fields >> type;
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

}  // namespace

bool remove_dead_mount(const std::string& path) {
  struct stat attr {};
  return mounted_type(path) == "fuse.csdfs" && stat(path.c_str(), &attr) != 0 && errno == ENOTCONN &&
         detach(path);
}

nvsock::Result<Mountpoint> prepare_mountpoint(const std::string& path) {
  nvsock::Result<std::string> result = absolute(path);
  if (!result) return result.error();
  Mountpoint place{.path = std::move(*result)};
  struct stat attr {};
  while (mounted_type(place.path).compare(0, 4, "fuse") == 0) {
    // A dead one answers at once; a live csdfs never waits for anything in a lookup of its root.
    if (stat(place.path.c_str(), &attr) == 0) {
      if (mounted_type(place.path) != "fuse.csdfs") break;
      return nvsock::Error{EBUSY, "mountpoint " + place.path + " already holds a csdfs; unmount it first"};
    }
    if (errno != ENOTCONN && errno != ECONNABORTED) break;
    if (const std::string type = mounted_type(place.path); type != "fuse.csdfs") {
      return nvsock::Error{EBUSY, "the dead mount on " + place.path + " is not of csdfs but of " + type +
                                      "; unmount it first"};
    }
    if (!detach(place.path)) {
      const int code = errno;
      return nvsock::Error{code,
                           "the dead mount on " + place.path + " cannot be removed: " + std::strerror(code)};
    }
    place.replaced = true;
  }
  if (stat(place.path.c_str(), &attr) != 0) {
    const int code = errno;
    return nvsock::Error{code, "mountpoint " + place.path + ": " + std::strerror(code)};
  }
  if (!S_ISDIR(attr.st_mode))
    return nvsock::Error{ENOTDIR, "mountpoint " + place.path + " is not a directory"};
  return place;
}

}  // namespace csdfs
