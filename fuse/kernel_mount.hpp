// The kernel's end: mounting, receiving requests on the event loop, unmounting.
//
// The thread that receives a request finishes it, socket work of the emulated drive included: handing it
// to another thread would double what a round trip costs. Threads: event loop only. Nothing blocks but
// mount().
#pragma once

#include <fuse_lowlevel.h>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <functional>
#include <string>

#include "fuse/filesystem.hpp"
#include "fuse/mountpoint.hpp"
#include "libnvsock/base/buffer.hpp"

namespace csdfs {

class KernelMount {
 public:
  KernelMount(asio::io_context& loop, Filesystem& filesystem);
  ~KernelMount();

  // Mounts and starts to serve. `arguments` is argv of what libfuse shall see; `by_path`: fusermount3 has a
  // part in it, and descriptors mean nothing to it. The mountpoint must outlive this. An error, with a
  // sentence. Once.
  nvsock::Result<void> mount(Mountpoint& mountpoint, bool by_path, const std::vector<std::string>& arguments);

  // Serves what the kernel has waiting, at most so much that a busy program cannot keep it from ending: files
  // that programs have closed are told by requests like any other.
  void serve_waiting();

  // Unmounts, lazily where the mount is in use, and stops serving. Requests the kernel still holds end
  // with ENOTCONN. An error: the mount stays, and is dead.
  nvsock::Result<void> unmount();

  std::function<void()> on_unmounted;  // somebody else unmounted it

 private:
  void await_request();
  void serve_requests();
  bool serve_request();
  void stop_serving();

  Filesystem& filesystem_;
  Mountpoint* mountpoint_ = nullptr;  // null: the mount is libfuse's to undo
  fuse_session* session_ = nullptr;
  int nothing_ = -1;  // /dev/null, which takes the place of /dev/fuse at the end
  bool mounted_ = false;
  asio::posix::stream_descriptor kernel_;  // /dev/fuse; owned by libfuse
  nvsock::BufferPool buffers_;
  nvsock::BufferRef buffer_;  // the next request arrives here
};

}  // namespace csdfs
