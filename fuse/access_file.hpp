// The file with the access rules of a mount.
//
// Who can change it decides what others may do, so it must be a regular file of root's or of the mount's
// owner that nobody else may write; that is looked at on what was opened, not on the path.
//
// Threads: any. Blocks: for the file, and for whatever the names of users and groups come from.
#pragma once

#include <sys/types.h>

#include <string>

#include "fuse/access_rules.hpp"
#include "libnvsock/base/result.hpp"

namespace csdfs {

inline constexpr size_t longest_access_file = 256 * 1024;  // bytes

// An error, with a sentence.
nvsock::Result<AccessRules> load_access_rules(const std::string& path, uid_t owner);

}  // namespace csdfs
