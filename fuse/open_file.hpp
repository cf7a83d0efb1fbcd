// What an open file of the mount answers. One object per open file description, from OPEN to RELEASE.
//
// Every call ends in exactly one reply to `request`, at once or later; none blocks. Threads: event loop.
#pragma once

#include <fuse_lowlevel.h>

#include <cerrno>

#include "libnvsock/base/buffer.hpp"

namespace csdfs {

// Largest READ and WRITE asked of the kernel: its limit of 256 pages (Linux 4.20, FUSE_MAX_MAX_PAGES).
inline constexpr size_t max_transfer = 1024 * 1024;

class OpenFile {
 public:
  virtual void read(fuse_req_t request, size_t size, off_t offset, const fuse_file_info& info) = 0;
  // `data` may be kept; its buffer must not change while it is.
  virtual void write(fuse_req_t request, nvsock::Slice data, const fuse_file_info&) {
    (void)data;
    fuse_reply_err(request, EBADF);
  }
  virtual void poll(fuse_req_t request, fuse_pollhandle* handle);
  virtual void ioctl(fuse_req_t request, unsigned command, const void* in, size_t in_size, size_t out_size) {
    (void)command, (void)in, (void)in_size, (void)out_size;
    fuse_reply_err(request, ENOTTY);
  }
  virtual void fsync(fuse_req_t request) { fuse_reply_err(request, 0); }
  // The last reference to the description is gone: deletes the object.
  virtual void release() = 0;

 protected:
  ~OpenFile() = default;
};

// Answers OPEN with `file`, of which the kernel caches nothing. If the open was interrupted meanwhile, nobody
// has the file, and it is released.
void reply_open(fuse_req_t request, fuse_file_info info, OpenFile& file);

}  // namespace csdfs
