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
#include <fstream>
#include <sstream>

namespace csdfs {
namespace {

// For the daemon of a mount to say what its root is, which a live one does at once, on a loaded machine too.
constexpr std::chrono::milliseconds patience{3000};

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

// What stat(2) says of a place.
struct Look {
  int error = 0;  // ETIMEDOUT: nothing
  mode_t mode = 0;
};

Look look_at(const std::string& path) {
  struct stat about {};
  if (stat(path.c_str(), &about) != 0) return {.error = errno};
  return {.mode = about.st_mode};
}

// The same of a mount, whose daemon may have been stopped and never answer: another process asks, and can be
// left behind. It is killed; where the daemon had begun to answer not even that helps, until the daemon goes
// on.
Look look_at_mount(const std::string& path) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {.error = errno};
  const pid_t child = fork();
  if (child == 0) {
    const Look look = look_at(path);
    _exit(write(ends[1], &look, sizeof look) == sizeof look ? 0 : 1);
  }
  Look look{.error = child < 0 ? errno : ETIMEDOUT};
  close(ends[1]);
  if (child > 0) {
    pollfd answer{.fd = ends[0], .events = POLLIN, .revents = 0};
    const bool told = poll(&answer, 1, static_cast<int>(patience.count())) > 0 &&
                      read(ends[0], &look, sizeof look) == sizeof look;
    if (!told) kill(child, SIGKILL);
    waitpid(child, nullptr, told ? 0 : WNOHANG);
  }
  close(ends[0]);
  return look;
}

}  // namespace

bool remove_dead_mount(const std::string& path) {
  return mounted_type(path) == "fuse.csdfs" && look_at_mount(path).error == ENOTCONN && detach(path);
}

nvsock::Result<Mountpoint> prepare_mountpoint(const std::string& path) {
  nvsock::Result<std::string> result = absolute(path);
  if (!result) return result.error();
  Mountpoint place{.path = std::move(*result)};
  Look look;
  while (true) {
    const std::string type = mounted_type(place.path);
    const bool is_fuse = type.starts_with("fuse");
    look = is_fuse ? look_at_mount(place.path) : look_at(place.path);
    if (!is_fuse) break;
    if (look.error == ETIMEDOUT) {
      return nvsock::Error{
          EBUSY, "the mount on " + place.path + ", of " + type +
                     ", does not answer, as if its daemon were stopped; end that, or take the mount "
                     "away with umount -l"};
    }
    if (look.error == 0) {
      if (type != "fuse.csdfs") break;
      return nvsock::Error{EBUSY, "mountpoint " + place.path + " already holds a csdfs; unmount it first"};
    }
    if (look.error != ENOTCONN && look.error != ECONNABORTED) break;
    if (type != "fuse.csdfs") {
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
  if (look.error != 0) {
    return nvsock::Error{look.error, "mountpoint " + place.path + ": " + std::strerror(look.error)};
  }
  if (!S_ISDIR(look.mode)) return nvsock::Error{ENOTDIR, "mountpoint " + place.path + " is not a directory"};
  return place;
}

}  // namespace csdfs
