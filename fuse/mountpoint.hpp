// The directory that is mounted on, held by a descriptor from before the drive is asked what it is until the
// end: that may take half a minute, in which whoever owns a directory above can put another one, or a link,
// in its place. What is mounted and unmounted is this one, wherever it is by then.
//
// Root mounts by the descriptor. Without root fusermount3(1) mounts by the path, with checks of its own.
// Threads: one at a time. Nothing blocks.
#pragma once

#include <string>

#include "libnvsock/base/result.hpp"

namespace csdfs {

class Mountpoint {
 public:
  // PATH has no symbolic links. ENOTDIR: it is no directory.
  static nvsock::Result<Mountpoint> open(const std::string& path);
  Mountpoint(Mountpoint&& other) noexcept;
  Mountpoint& operator=(Mountpoint&&) = delete;
  ~Mountpoint() { let_go(); }

  const std::string& path() const { return path_; }  // where it was
  std::string place() const;                         // where it is
  std::string descriptor() const;                    // a name that leads to it: /proc/self/fd/N

  // Detaches the mount of csdfs on it, if there is one, and nothing that was mounted over that one meanwhile:
  // then the dead mount stays below, and the error says so (EBUSY). Once; then the directory is let go.
  nvsock::Result<void> unmount();
  // Its file system is not kept busy any more. REQUIRES of what comes after: path() alone.
  void let_go();

  bool replaced = false;  // a dead mount was there

 private:
  Mountpoint(std::string path, int directory) : path_(std::move(path)), directory_(directory) {}

  std::string path_;
  int directory_;  // O_PATH; -1: let go
};

}  // namespace csdfs
