// The libc functions behind our hooks.
//
// dlsym() takes the loader's lock and may allocate, so it runs once, in setup(), and never inside a hook.
// Until then (another library's constructor, an allocator starting up) each entry is a bare system call.
// Afterwards it is the next definition in search order, which keeps thread cancellation, sanitizer
// interceptors and other preloaded libraries working.
//
// Threads: any, signal handlers too, but for resolve_all().
#pragma once

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <atomic>

namespace nvsock::preload::real {

template <typename Function>
class Next {
 public:
  constexpr Next(const char* symbol, Function* system_call) : symbol_(symbol), call_(system_call) {}

  template <typename... Args>
  auto operator()(Args... args) const {
    return call_.load(std::memory_order_relaxed)(args...);
  }

  void resolve();

 private:
  const char* symbol_;
  std::atomic<Function*> call_;
};

extern Next<int(int, const sockaddr*, socklen_t)> connect;
extern Next<int(int, int)> shutdown;
extern Next<int(int, sockaddr*, socklen_t*)> getpeername, getsockname;
extern Next<int(int, int, int, void*, socklen_t*)> getsockopt;
extern Next<int(int, int, int, const void*, socklen_t)> setsockopt;
extern Next<int(int, unsigned long, ...)> ioctl;

extern Next<ssize_t(int, const void*, size_t)> write;
extern Next<ssize_t(int, const iovec*, int)> writev;
extern Next<ssize_t(int, const void*, size_t, int)> send;
extern Next<ssize_t(int, const void*, size_t, int, const sockaddr*, socklen_t)> sendto;
extern Next<ssize_t(int, const msghdr*, int)> sendmsg;
extern Next<int(int, mmsghdr*, unsigned, int)> sendmmsg;

extern Next<ssize_t(int, void*, size_t)> read;
extern Next<ssize_t(int, const iovec*, int)> readv;
extern Next<ssize_t(int, void*, size_t, int)> recv;
extern Next<ssize_t(int, void*, size_t, int, sockaddr*, socklen_t*)> recvfrom;
extern Next<ssize_t(int, msghdr*, int)> recvmsg;
extern Next<int(int, mmsghdr*, unsigned, int, timespec*)> recvmmsg;

extern Next<int(int, struct stat*)> fstat;
extern Next<int(int, const char*, struct stat*, int)> fstatat;
extern Next<int(int, const char*, int, unsigned, struct statx*)> statx;

// Replaces the system calls by the functions. Called once, before the process has threads.
void resolve_all();

}  // namespace nvsock::preload::real
