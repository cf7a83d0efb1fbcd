// MOUNT/ctl: what is written to it are commands, one a line; what is read from it, their forms.
//
// A write takes one line and its newline, and returns how long they were, so that whoever writes several
// writes the rest again, as after any short write. Its error is the command's; the log has the sentence.
// Whether publish works is known when the drive has answered: the write waits for that, and a signal
// withdraws it.
//
// Whoever opened the file gives the commands, not whoever writes to it: a program with more rights that can
// be made to write, as to its standard error, must not lend them. The user who mounts and root may do
// everything; others publish where the access rules let them, and end what is theirs; forwards are not for
// them. Threads: event loop only. Nothing blocks.
#pragma once

#include <fuse_lowlevel.h>

namespace csdfs {

class MountedDrive;

// Answers OPEN. EACCES for other users where there are no rules.
void open_control(MountedDrive& drive, fuse_req_t request, const fuse_file_info& info);

}  // namespace csdfs
