// fstat() and its relatives say "socket" of a connection: programs choose by it how to read and poll
// (libuv takes a regular file for always ready). Only forms that name the descriptor itself; paths such as
// /proc/self/fd/N show the file.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "preload/ours.hpp"
#include "preload/real.hpp"

namespace nvsock::preload {
namespace {

static_assert(sizeof(struct stat) == sizeof(struct stat64), "64-bit systems only");

constexpr int kNewestStatVersion = 1;  // _STAT_VER of x86-64; aarch64 has 0

bool names_itself(const char* path, int flags) {
  return (flags & AT_EMPTY_PATH) != 0 && (path == nullptr || *path == '\0');
}

// csdfs is asked each time, and not the hint of is_ours(): no other file may ever look like a socket.
bool is_connection(int fd, mode_t mode, unsigned device_major) {
  nvsock_info info{};
  return S_ISREG(mode) && device_major == 0 && hooks_active() && describe(fd, info);
}

int as_socket(int fd, int result, struct stat* file) {
  if (result == 0 && is_connection(fd, file->st_mode, major(file->st_dev))) {
    file->st_mode = S_IFSOCK | 0777;
    file->st_size = 0;
    file->st_blocks = 0;
  }
  return result;
}

int stat_fd(int fd, struct stat* file) {
  return as_socket(fd, real::fstat(fd, file), file);
}

int stat_at(int fd, const char* path, struct stat* file, int flags) {
  const int result = real::fstatat(fd, path, file, flags);
  return names_itself(path, flags) ? as_socket(fd, result, file) : result;
}

}  // namespace

NVSOCK_HOOK int fstat(int fd, struct stat* file) noexcept {
  return stat_fd(fd, file);
}

NVSOCK_HOOK int fstat64(int fd, struct stat64* file) noexcept {
  return stat_fd(fd, reinterpret_cast<struct stat*>(file));
}

NVSOCK_HOOK int fstatat(int fd, const char* __restrict path, struct stat* __restrict file,
                        int flags) noexcept {
  return stat_at(fd, path, file, flags);
}

NVSOCK_HOOK int fstatat64(int fd, const char* __restrict path, struct stat64* __restrict file,
                          int flags) noexcept {
  return stat_at(fd, path, reinterpret_cast<struct stat*>(file), flags);
}

// What programs built before glibc 2.33 call.
NVSOCK_HOOK int __fxstat(int version, int fd, struct stat* file) noexcept {
  return version > kNewestStatVersion ? fail(EINVAL) : stat_fd(fd, file);
}

NVSOCK_HOOK int __fxstat64(int version, int fd, struct stat64* file) noexcept {
  return version > kNewestStatVersion ? fail(EINVAL) : stat_fd(fd, reinterpret_cast<struct stat*>(file));
}

NVSOCK_HOOK int statx(int fd, const char* __restrict path, int flags, unsigned mask,
                      struct statx* __restrict file) noexcept {
  const int result = real::statx(fd, path, flags, mask, file);
  if (result == 0 && names_itself(path, flags) && is_connection(fd, file->stx_mode, file->stx_dev_major)) {
    file->stx_mode = S_IFSOCK | 0777;
    file->stx_size = 0;
    file->stx_blocks = 0;
  }
  return result;
}

}  // namespace nvsock::preload
