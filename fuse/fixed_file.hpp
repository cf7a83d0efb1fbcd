// The files and directories that a drive's directory has whatever happens: MOUNT/tcp, MOUNT/status and so on.
//
// A new one is a row in fixed_file.cpp and, where its content is made, a file with its `open`.
// Threads: constant.
#pragma once

#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include <span>

#include "libnvsock/socket/endpoint.hpp"

namespace csdfs {

class MountedDrive;

struct FixedFile {
  const char* name;
  fuse_ino_t id;  // below fixed_ids; st_ino too, so that no other row may ever take it over
  mode_t mode;    // S_IFDIR or S_IFREG, and permissions: who opens a file for more gets EACCES
  // Files. Answers OPEN, at once or later.
  void (*open)(MountedDrive& drive, fuse_req_t request, const fuse_file_info& info);
  // Directories: what kind of connections is in it.
  nvsock::SocketType type = nvsock::SocketType::stream;

  bool is_directory() const { return S_ISDIR(mode); }
};

// Identifiers set aside for a drive's directory and its rows. The directory itself is FUSE_ROOT_ID among
// them.
inline constexpr fuse_ino_t fixed_ids = 16;

// In the order that readdir has. Opening any of it by accident connects nowhere.
std::span<const FixedFile> fixed_files();

}  // namespace csdfs
