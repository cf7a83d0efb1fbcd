#include "preload/real.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace nvsock::preload::real {
namespace {

template <typename... Args>
int call(long number, Args... args) {
  return static_cast<int>(::syscall(number, args...));
}

int raw_ioctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  return call(SYS_ioctl, fd, request, argument);
}

}  // namespace

template <typename Function>
void Next<Function>::resolve() {
  if (void* found = ::dlsym(RTLD_NEXT, symbol_)) {
    call_.store(reinterpret_cast<Function*>(found), std::memory_order_relaxed);
  }
}

constinit Next<int(int, const sockaddr*, socklen_t)> connect{
    "connect", [](int fd, const sockaddr* to, socklen_t size) { return call(SYS_connect, fd, to, size); }};
constinit Next<int(int, int)> shutdown{"shutdown",
                                       [](int fd, int how) { return call(SYS_shutdown, fd, how); }};
constinit Next<int(int, sockaddr*, socklen_t*)> getpeername{
    "getpeername", [](int fd, sockaddr* to, socklen_t* size) { return call(SYS_getpeername, fd, to, size); }};
constinit Next<int(int, sockaddr*, socklen_t*)> getsockname{
    "getsockname", [](int fd, sockaddr* to, socklen_t* size) { return call(SYS_getsockname, fd, to, size); }};
constinit Next<int(int, int, int, void*, socklen_t*)> getsockopt{
    "getsockopt", [](int fd, int level, int name, void* value, socklen_t* size) {
      return call(SYS_getsockopt, fd, level, name, value, size);
    }};
constinit Next<int(int, int, int, const void*, socklen_t)> setsockopt{
    "setsockopt", [](int fd, int level, int name, const void* value, socklen_t size) {
      return call(SYS_setsockopt, fd, level, name, value, size);
    }};
constinit Next<int(int, unsigned long, ...)> ioctl{"ioctl", raw_ioctl};

constinit Next<ssize_t(int, const void*, size_t)> write{
    "write", [](int fd, const void* data, size_t size) { return ::syscall(SYS_write, fd, data, size); }};
constinit Next<ssize_t(int, const iovec*, int)> writev{
    "writev", [](int fd, const iovec* iov, int count) { return ::syscall(SYS_writev, fd, iov, count); }};
constinit Next<ssize_t(int, const void*, size_t, int)> send{
    "send", [](int fd, const void* data, size_t size, int flags) {
      return ::syscall(SYS_sendto, fd, data, size, flags, nullptr, 0);
    }};
constinit Next<ssize_t(int, const void*, size_t, int, const sockaddr*, socklen_t)> sendto{
    "sendto", [](int fd, const void* data, size_t size, int flags, const sockaddr* to, socklen_t to_size) {
      return ::syscall(SYS_sendto, fd, data, size, flags, to, to_size);
    }};
constinit Next<ssize_t(int, const msghdr*, int)> sendmsg{
    "sendmsg", [](int fd, const msghdr* m, int flags) { return ::syscall(SYS_sendmsg, fd, m, flags); }};
constinit Next<int(int, mmsghdr*, unsigned, int)> sendmmsg{
    "sendmmsg",
    [](int fd, mmsghdr* m, unsigned count, int flags) { return call(SYS_sendmmsg, fd, m, count, flags); }};

constinit Next<ssize_t(int, void*, size_t)> read{
    "read", [](int fd, void* data, size_t size) { return ::syscall(SYS_read, fd, data, size); }};
constinit Next<ssize_t(int, const iovec*, int)> readv{
    "readv", [](int fd, const iovec* iov, int count) { return ::syscall(SYS_readv, fd, iov, count); }};
constinit Next<ssize_t(int, void*, size_t, int)> recv{"recv", [](int fd, void* data, size_t size, int flags) {
                                                        return ::syscall(SYS_recvfrom, fd, data, size, flags,
                                                                         nullptr, nullptr);
                                                      }};
constinit Next<ssize_t(int, void*, size_t, int, sockaddr*, socklen_t*)> recvfrom{
    "recvfrom", [](int fd, void* data, size_t size, int flags, sockaddr* from, socklen_t* from_size) {
      return ::syscall(SYS_recvfrom, fd, data, size, flags, from, from_size);
    }};
constinit Next<ssize_t(int, msghdr*, int)> recvmsg{
    "recvmsg", [](int fd, msghdr* m, int flags) { return ::syscall(SYS_recvmsg, fd, m, flags); }};
constinit Next<int(int, mmsghdr*, unsigned, int, timespec*)> recvmmsg{
    "recvmmsg", [](int fd, mmsghdr* m, unsigned count, int flags, timespec* timeout) {
      return call(SYS_recvmmsg, fd, m, count, flags, timeout);
    }};

constinit Next<int(int, struct stat*)> fstat{
    "fstat", [](int fd, struct stat* to) { return call(SYS_newfstatat, fd, "", to, AT_EMPTY_PATH); }};
constinit Next<int(int, const char*, struct stat*, int)> fstatat{
    "fstatat", [](int dir, const char* path, struct stat* to, int flags) {
      return call(SYS_newfstatat, dir, path, to, flags);
    }};
constinit Next<int(int, const char*, int, unsigned, struct statx*)> statx{
    "statx", [](int dir, const char* path, int flags, unsigned mask, struct statx* to) {
      return call(SYS_statx, dir, path, flags, mask, to);
    }};

void resolve_all() {
  const auto all = [](auto&... functions) { (functions.resolve(), ...); };
  all(connect, shutdown, getpeername, getsockname, getsockopt, setsockopt, ioctl, write, writev, send, sendto,
      sendmsg, sendmmsg, read, readv, recv, recvfrom, recvmsg, recvmmsg, fstat, fstatat, statx);
}

}  // namespace nvsock::preload::real
