// An open of MOUNT/status or MOUNT/status.json, which waits until the drive has told its counters: not longer
// than a second, so that a drive that does not answer can be looked at too.
//
// Belongs to its drive from start() to the reply (MountedDrive::hold). Threads: event loop only. Nothing
// blocks.
#pragma once

#include <fuse_lowlevel.h>

#include <functional>
#include <memory>
#include <string>

#include "fuse/status_report.hpp"
#include "libnvsock/base/asio_clock.hpp"

namespace csdfs {

class MountedDrive;

// Answers OPEN with what `write` makes of the report, at once or later.
using StatusWriter = std::function<std::string(const StatusReport& report)>;
void open_status(MountedDrive& drive, fuse_req_t request, StatusWriter write);

class StatusOpen : public std::enable_shared_from_this<StatusOpen> {
 public:
  StatusOpen(MountedDrive& drive, fuse_req_t request, StatusWriter write);
  void start();
  void mount_ends() { fail(ENODEV); }

 private:
  static void interrupted(fuse_req_t request, void* self);
  // Both take the object out of the drive and answer the request: `this` may be gone afterwards.
  void answer(const DriveReport& told);
  void fail(int error);

  MountedDrive& drive_;
  fuse_req_t request_;  // null: answered
  const StatusWriter write_;
  const std::unique_ptr<nvsock::Clock::Timer> timer_;
};

}  // namespace csdfs
