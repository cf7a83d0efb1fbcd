// The mounts of csdfs on this host, and talking to one through its files.
//
// Reading waits for csdfs, which answers at once unless it is stopped: limit_time() bounds that.
// Threads: the main thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/invocation.hpp"
#include "libnvsock/base/result.hpp"

namespace nvsock::cli {

std::vector<std::string> mounts();  // their directories, oldest first

// That of --mount or NVSOCK_MOUNT, or the only one there is. ENODEV: none; EINVAL: which one?
Result<std::string> choose_mount(const Invocation& run);

// The one that has this drive, if there is one. An emulated drive is its process's alone: none.
std::optional<std::string> mount_of(std::string_view device);

// A whole file. The error names it.
Result<std::string> read_file(const std::string& path);

// The value of a line "NAME: VALUE" in MOUNT/status; empty: there is none.
std::string status_value(std::string_view status, std::string_view name);

// The commands of a mount. Its lifetime is that of forwards that are to be held.
class Control {
 public:
  static Result<Control> open(const std::string& mount);
  Control(Control&& other) noexcept;
  Control& operator=(Control&&) = delete;
  ~Control();

  // One command, and what it answers. An error comes with csdfs's sentence.
  Result<std::string> command(const std::string& line);

  int fd() const { return fd_; }  // poll() tells POLLERR when the mount is gone

 private:
  explicit Control(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace nvsock::cli
