#include "fuse/open_file.hpp"

#include <linux/fuse.h>
#include <poll.h>

namespace csdfs {

// As the kernel says of a plain file.
void OpenFile::poll(fuse_req_t request, fuse_pollhandle* handle) {
  if (handle != nullptr) fuse_pollhandle_destroy(handle);
  fuse_reply_poll(request, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
}

// Not by fuse_reply_open(): libfuse 3.14 has no field for FOPEN_STREAM.
void OpenFiles::answer_open(fuse_req_t request, std::unique_ptr<OpenFile> file, uint32_t flags) {
  fuse_open_out out{};
  out.fh = reinterpret_cast<uintptr_t>(file.get());
  out.open_flags = flags | FOPEN_DIRECT_IO;
  // ENOENT: the open was interrupted while the answer was on its way; nobody has the file.
  if (fuse_reply_buf(request, reinterpret_cast<const char*>(&out), sizeof out) != 0) return file->release();
  held_.emplace(file.get(), std::move(file));
}

void OpenFiles::release(OpenFile& file) {
  const auto held = held_.extract(&file);
  file.release();
}

void OpenFiles::release_all(bool cut) {
  // What one of them does as it goes may answer an open of another.
  while (!held_.empty()) {
    OpenFile& file = *held_.begin()->first;
    if (cut) file.cut();
    release(file);
  }
}

}  // namespace csdfs
