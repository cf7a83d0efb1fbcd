// What an open file of the mount answers. One object per open file description, from OPEN to RELEASE.
//
// Who owns one: whoever makes it, until it answers OPEN; then OpenFiles, for the kernel, which
// knows it by number. Every call ends in exactly one reply to `request`, at once or later; none
// blocks. Threads: event loop only.
#pragma once

#include <fuse_lowlevel.h>

#include <cerrno>
#include <memory>
#include <unordered_map>

#include "libnvsock/base/buffer.hpp"

namespace csdfs {

// Largest READ and WRITE asked of the kernel: its limit of 256 pages (Linux 4.20, FUSE_MAX_MAX_PAGES).
inline constexpr size_t max_transfer = 1024 * 1024;

class OpenFile {
 public:
  virtual ~OpenFile() = default;

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
  // The last reference to the description is gone, or the mount is: requests that still wait are answered.
  // The object is destroyed next.
  virtual void release() {}
  // The mount ends while programs have the description open. release() comes next.
  virtual void cut() {}
};

// The files the kernel has open, and its handles for them: the one place where an OpenFile is a number.
class OpenFiles {
 public:
  // Answers OPEN with `file`, of which the kernel caches nothing; `flags` is FOPEN_* of linux/fuse.h. If the
  // open was interrupted meanwhile nobody has the file, and it is released.
  void answer_open(fuse_req_t request, std::unique_ptr<OpenFile> file, uint32_t flags);

  // REQUIRES: a request for an open file.
  static OpenFile& of(const fuse_file_info& info) { return *reinterpret_cast<OpenFile*>(info.fh); }

  // RELEASE: the kernel lets go of it.
  void release(const fuse_file_info& info) { release(of(info)); }

  // The mount is gone, and sends no RELEASE. `cut`: programs have these files open; otherwise they have
  // closed them, and the kernel did not get to say so.
  void release_all(bool cut);

 private:
  void release(OpenFile& file);

  std::unordered_map<OpenFile*, std::unique_ptr<OpenFile>> held_;
};

}  // namespace csdfs
