#include "fuse/open_file.hpp"

#include <poll.h>

namespace csdfs {

// As the kernel says of a plain file.
void OpenFile::poll(fuse_req_t request, fuse_pollhandle* handle) {
  if (handle != nullptr) fuse_pollhandle_destroy(handle);
  fuse_reply_poll(request, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
}

void reply_open(fuse_req_t request, fuse_file_info info, OpenFile& file) {
  info.fh = reinterpret_cast<uintptr_t>(&file);
  info.direct_io = 1;
  if (fuse_reply_open(request, &info) != 0) file.release();
}

}  // namespace csdfs
