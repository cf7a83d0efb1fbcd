// An open of MOUNT/status, which waits until the drive has told its counters: not longer than a second, so
// that a drive that does not answer can be looked at too.
#pragma once

#include <fuse_lowlevel.h>

#include <memory>

#include "fuse/status_report.hpp"
#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/device.hpp"

namespace csdfs {

class Filesystem;

class StatusOpen : public std::enable_shared_from_this<StatusOpen> {
 public:
  // Answers OPEN, at once or later.
  static void start(Filesystem& filesystem, fuse_req_t request);

  StatusOpen(Filesystem& filesystem, fuse_req_t request);
  void mount_ends() { fail(ENODEV); }

 private:
  static void interrupted(fuse_req_t request, void* self);
  void answer(const DriveReport& told);
  void fail(int error);

  Filesystem& filesystem_;
  fuse_req_t request_;  // null: answered
  const std::unique_ptr<nvsock::Clock::Timer> timer_;
};

}  // namespace csdfs
