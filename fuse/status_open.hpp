// An open of MOUNT/status, which waits until the drive has told its counters: not longer than a second, so
// that a drive that does not answer can be looked at too.
//
// Belongs to its drive from start() to the reply (MountedDrive::hold). Threads: event loop only. Nothing
// blocks.
#pragma once

#include <fuse_lowlevel.h>

#include <memory>

#include "fuse/status_report.hpp"
#include "libnvsock/base/asio_clock.hpp"

namespace csdfs {

class MountedDrive;

// Answers OPEN of MOUNT/status, at once or later.
void open_status(MountedDrive& drive, fuse_req_t request, const fuse_file_info& info);

class StatusOpen : public std::enable_shared_from_this<StatusOpen> {
 public:
  StatusOpen(MountedDrive& drive, fuse_req_t request);
  void start();
  void mount_ends() { fail(ENODEV); }

 private:
  static void interrupted(fuse_req_t request, void* self);
  // Both take the object out of the drive and answer the request: `this` may be gone afterwards.
  void answer(const DriveReport& told);
  void fail(int error);

  MountedDrive& drive_;
  fuse_req_t request_;  // null: answered
  const std::unique_ptr<nvsock::Clock::Timer> timer_;
};

}  // namespace csdfs
