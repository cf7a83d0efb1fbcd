#include "fuse/kernel_mount.hpp"

#include <fcntl.h>
#include <linux/fuse.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <utility>

namespace csdfs {
namespace {

// A WRITE request is these two headers, then the payload. With the buffer this far from a page's start
// the payload lies on a page boundary, where commands can take it without a copy.
constexpr size_t headers = sizeof(fuse_in_header) + sizeof(fuse_write_in);
constexpr size_t skew = nvsock::page_size - headers;

// libfuse 3.14 reads up to 256 pages and one for the headers into the buffer it is given.
constexpr size_t request_size = max_transfer + nvsock::page_size;

// Large writes keep their buffer while the stream sends it; a few of them at a time is a busy mount.
constexpr size_t kept_buffers = 4;

// What libfuse complains of becomes part of our one sentence; it says it piece by piece.
std::string libfuse_message;

void keep_message(fuse_log_level, const char* format, va_list arguments) {
  char text[256];
  vsnprintf(text, sizeof text, format, arguments);
  libfuse_message += text;
}

std::string taken_message() {
  std::string text = std::exchange(libfuse_message, {});
  if (text.starts_with("fuse: ")) text.erase(0, 6);
  text.erase(text.find_last_not_of('\n') + 1);
  return text;
}

// libfuse keeps the name until it unmounts by it, which it never does where the mountpoint is a descriptor: a
// leak of a few bytes, once.
int mount_session(fuse_session* session, const std::string& where) {
#ifdef __SANITIZE_ADDRESS__
  const __lsan::ScopedDisabler known;
#endif
  return fuse_session_mount(session, where.c_str());
}

// Requests served before other events get a turn.
constexpr int requests_in_a_row = 16;

// And before the mount ends: as many files as may be open at a time, and what programs do meanwhile.
constexpr int last_requests = 32768;

}  // namespace

KernelMount::KernelMount(asio::io_context& loop, Filesystem& filesystem)
    : filesystem_(filesystem), kernel_(loop), buffers_(request_size, kept_buffers, skew) {}

KernelMount::~KernelMount() {
  (void)unmount();
  if (session_ != nullptr) fuse_session_destroy(session_);
  if (nothing_ >= 0) close(nothing_);
}

nvsock::Result<void> KernelMount::mount(Mountpoint& mountpoint, bool by_path,
                                        const std::vector<std::string>& arguments) {
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  for (const std::string& argument : arguments) fuse_opt_add_arg(&args, argument.c_str());
  fuse_set_log_func(keep_message);
  session_ = fuse_session_new(&args, &Filesystem::operations(), sizeof(fuse_lowlevel_ops), &filesystem_);
  fuse_opt_free_args(&args);
  if (session_ == nullptr) return nvsock::Error{EINVAL, taken_message() + "; see csdfs --help"};
  const std::string where = by_path ? mountpoint.path() : mountpoint.descriptor();
  if (mount_session(session_, where) != 0) {
    return nvsock::Error{EIO, "cannot mount on " + mountpoint.path() + ": " + taken_message()};
  }
  if (!by_path) {
    mountpoint_ = &mountpoint;
    nothing_ = open("/dev/null", O_RDWR | O_CLOEXEC);  // now: there may be no descriptor left at the end
  }
  fuse_set_log_func(nullptr);  // from here on to standard error, where -d shows the requests
  mounted_ = true;
  const int fd = fuse_session_fd(session_);
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  kernel_.assign(fd);
  await_request();
  return {};
}

void KernelMount::serve_waiting() {
  for (int i = 0; mounted_ && i < last_requests && serve_request(); ++i) continue;
}

nvsock::Result<void> KernelMount::unmount() {
  if (!mounted_) return {};
  stop_serving();
  if (mountpoint_ != nullptr) return mountpoint_->unmount();
  fuse_session_unmount(session_);
  return {};
}

void KernelMount::stop_serving() {
  mounted_ = false;
  kernel_.release();  // out of the loop; libfuse closes it
  // Unmounting must not wait for an answer of ours. libfuse would look for the mount by its name again; it
  // has still a number to close.
  if (mountpoint_ != nullptr) dup2(nothing_, fuse_session_fd(session_));
}

void KernelMount::await_request() {
  kernel_.async_wait(asio::posix::stream_descriptor::wait_read, [this](const asio::error_code& cancelled) {
    if (!cancelled && mounted_) serve_requests();
  });
}

void KernelMount::serve_requests() {
  for (int i = 0; i < requests_in_a_row; ++i) {
    if (!serve_request()) break;
    if (!mounted_) return;
  }
  if (mounted_) await_request();
}

// False: nothing is waiting.
bool KernelMount::serve_request() {
  if (!buffer_ || !buffer_.unique()) buffer_ = buffers_.take();
  fuse_buf request{};
  request.mem = buffer_.data();
  const int size = fuse_session_receive_buf(session_, &request);
  if (size == -EAGAIN || size == -EINTR) return false;
  if (size <= 0) {
    stop_serving();
    if (mountpoint_ != nullptr) {
      mountpoint_->let_go();
    } else {
      fuse_session_unmount(session_);
    }
    if (on_unmounted) on_unmounted();
    return false;
  }
  filesystem_.set_arrival(&buffer_);
  fuse_session_process_buf(session_, &request);
  filesystem_.set_arrival(nullptr);
  return true;
}

}  // namespace csdfs
