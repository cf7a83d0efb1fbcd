#include "csd/target/namespace.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <cerrno>
#include <cstring>

namespace nvsock::csd {

Result<std::unique_ptr<Namespace>> Namespace::open(asio::io_context& loop, const std::string& file,
                                                   uint64_t size) {
  int fd = -1;
  const auto fail = [&](int code, const std::string& what) {
    if (fd >= 0) close(fd);
    return Error{code, what + ": " + std::strerror(code)};
  };
  if (!file.empty()) {
    fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat status {};
    if (fd < 0 || fstat(fd, &status) != 0) return fail(errno, "namespace file " + file);
    if (size == 0) size = static_cast<uint64_t>(status.st_size);
  }
  size -= size % block_size;
  if (size == 0)
    return fail(EINVAL, "namespace of 0 blocks, one is " + std::to_string(block_size) + " bytes");
  // A block that is missing when it is written would be a SIGBUS.
  if (fd >= 0) {
    if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(size)); error != 0)
      return fail(error, "namespace file " + file + ": " + std::to_string(size) + " bytes");
  }
  void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                            fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, fd, 0);
  if (memory == MAP_FAILED) return fail(errno, "namespace of " + std::to_string(size) + " bytes");
  return std::unique_ptr<Namespace>(new Namespace(loop, fd, {static_cast<uint8_t*>(memory), size}));
}

Namespace::~Namespace() {
  if (flusher_) flusher_->join();
  munmap(bytes_.data(), bytes_.size());
  if (file_ >= 0) close(file_);
}

void Namespace::flush(std::function<void(int)> done) {
  if (!persistent()) return done(0);
  if (!flusher_) flusher_.emplace(1);
  asio::post(*flusher_, [this, done = std::move(done), work = asio::make_work_guard(loop_)]() mutable {
    const int error = msync(bytes_.data(), bytes_.size(), MS_SYNC) == 0 ? 0 : errno;
    asio::post(work.get_executor(), [done = std::move(done), error] { done(error); });
  });
}

}  // namespace nvsock::csd
