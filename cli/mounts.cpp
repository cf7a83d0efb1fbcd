#include "cli/mounts.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "libnvsock/base/mount_table.hpp"

namespace nvsock::cli {
namespace {

// Two names of one drive: options make no difference, nor symbolic links.
std::string bare(std::string_view device) {
  const std::string name(device.substr(0, device.find('?')));
  char real[PATH_MAX];
  return name.starts_with('/') && realpath(name.c_str(), real) != nullptr ? real : name;
}

Result<std::string> read_all(int fd) {
  std::string text;
  char part[4096];
  while (true) {
    const ssize_t size = read(fd, part, sizeof part);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return Error{errno, std::strerror(errno)};
    if (size == 0) return text;
    text.append(part, static_cast<size_t>(size));
  }
}

}  // namespace

std::vector<std::string> mounts() {
  std::vector<std::string> found;
  for (MountEntry& entry : mount_table()) {
    if (entry.type == "fuse.csdfs") found.push_back(std::move(entry.place));
  }
  return found;
}

Result<std::string> choose_mount(const Invocation& run) {
  if (!run.mount.empty()) return run.mount;
  if (const char* const named = std::getenv("NVSOCK_MOUNT"); named != nullptr && *named != '\0') {
    return std::string(named);
  }
  const std::vector<std::string> found = mounts();
  if (found.size() == 1) return found.front();
  if (found.empty()) {
    return Error{ENODEV, "no drive is mounted here; mount one with csdfs DEVICE DIRECTORY"};
  }
  std::string names;
  for (const std::string& path : found) names += (names.empty() ? "" : ", ") + path;
  return Error{EINVAL, "several drives are mounted (" + names + "): choose one with --mount"};
}

std::optional<std::string> mount_of(std::string_view device) {
  if (device.starts_with("emu:")) return std::nullopt;
  const std::string wanted = bare(device);
  for (const std::string& path : mounts()) {
    const Result<std::string> status = read_file(path + "/status");
    if (status && bare(status_value(*status, "device")) == wanted) return path;
  }
  return std::nullopt;
}

Result<std::string> read_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    const int code = errno;
    return Error{code == ENOTCONN ? ENODEV : code, "cannot open " + path + ": " + std::strerror(code)};
  }
  Result<std::string> text = read_all(fd);
  close(fd);
  if (!text) return Error{text.error().code, "cannot read " + path + ": " + text.error().text};
  return text;
}

std::string status_value(std::string_view status, std::string_view name) {
  const std::string start = std::string(name) + ": ";
  while (!status.empty()) {
    const std::string_view line = status.substr(0, status.find('\n'));
    if (line.starts_with(start)) return std::string(line.substr(start.size()));
    status.remove_prefix(std::min(line.size() + 1, status.size()));
  }
  return {};
}

Result<Control> Control::open(const std::string& mount) {
  const std::string path = mount + "/ctl";
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd >= 0) return Control(fd);
  const int code = errno;
  return Error{code == ENOTCONN || code == ENOENT ? ENODEV : code,
               "cannot open " + path + ": " + std::strerror(code)};
}

Control::Control(Control&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Control::~Control() {
  if (fd_ >= 0) close(fd_);
}

Result<std::string> Control::command(const std::string& line) {
  const ssize_t taken = write(fd_, line.data(), line.size());
  const int code = taken < 0 ? errno : 0;
  const Result<std::string> answer = read_all(fd_);
  if (code == 0) return answer;
  const bool told = answer && !answer->empty();
  return Error{code, told ? answer->substr(0, answer->find('\n')) : std::string(std::strerror(code))};
}

}  // namespace nvsock::cli
