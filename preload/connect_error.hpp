// Why a connection could not be made, in the words of connect(2).
//
// Threads: any, signal handlers too. Nothing blocks.
#pragma once

#include "libnvsock/socket/program_errno.hpp"

namespace nvsock::preload {

// There is no mount, no csdfs behind it, or it ended meanwhile.
inline constexpr int no_csdfs = connect_errno(file_errno(Cause::no_csdfs));

// What connect() tells of an error of the mount's file. NVSOCK_LOG gets both, where they differ.
int told_by_connect(int file_error);

// Takes the pending error of a connection that failed, as connect() tells it; 0: somebody
// took it before. REQUIRES: is_ours(fd).
int take_connect_error(int fd);

}  // namespace nvsock::preload
