// MOUNT/ctl: what is written to it are commands, one a line; what is read from it, their forms.
//
// A write takes one line and its newline, and returns how long they were, so that whoever writes several
// writes the rest again, as after any short write. Its error is the command's; the log has the sentence.
// Whether publish works is known when the drive has answered: the write waits for that, and a signal
// withdraws it. Threads: event loop only. Nothing blocks.
#pragma once

#include <fuse_lowlevel.h>

namespace csdfs {

class MountedDrive;

// Answers OPEN. Only the user who mounts and root may: EACCES for all others.
void open_control(MountedDrive& drive, fuse_req_t request, const fuse_file_info& info);

}  // namespace csdfs
