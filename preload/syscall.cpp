// syscall(): libuv before 1.45 (dig, Node.js) sends and receives its datagrams by number.
//
// Everything else goes to the kernel as it came, by an instruction of our own: libc's function is behind ours
// in search order, and this one must work before dlsym() may be called, and for this library's own calls.
#include <errno.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "preload/ours.hpp"

namespace nvsock::preload {
namespace {

#if defined(__x86_64__)
long enter_kernel(long number, const long (&a)[6]) {
  long result;
  register long r10 asm("r10") = a[3];
  register long r8 asm("r8") = a[4];
  register long r9 asm("r9") = a[5];
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
long enter_kernel(long number, const long (&a)[6]) {
  register long x8 asm("x8") = number;
  register long x0 asm("x0") = a[0];
  register long x1 asm("x1") = a[1];
  register long x2 asm("x2") = a[2];
  register long x3 asm("x3") = a[3];
  register long x4 asm("x4") = a[4];
  register long x5 asm("x5") = a[5];
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}
#else
#error "the system call instruction of this processor is needed here"
#endif

constexpr long kLargestError = 4095;  // Linux: MAX_ERRNO

}  // namespace

// Callers that give fewer arguments leave the others unread.
NVSOCK_HOOK long syscall(long number, ...) noexcept {
  long a[6];
  va_list list;
  va_start(list, number);
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  const int fd = static_cast<int>(a[0]);
  if (number == SYS_sendmmsg && hooks_active()) {
    return ::sendmmsg(fd, reinterpret_cast<mmsghdr*>(a[1]), static_cast<unsigned>(a[2]),
                      static_cast<int>(a[3]));
  }
  if (number == SYS_recvmmsg && hooks_active()) {
    return ::recvmmsg(fd, reinterpret_cast<mmsghdr*>(a[1]), static_cast<unsigned>(a[2]),
                      static_cast<int>(a[3]), reinterpret_cast<timespec*>(a[4]));
  }
  const long result = enter_kernel(number, a);
  return result < 0 && result >= -kLargestError ? fail(static_cast<int>(-result)) : result;
}

}  // namespace nvsock::preload
