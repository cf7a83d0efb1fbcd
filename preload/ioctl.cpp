// ioctl(): the byte counts of a connection.
//
// The one hook that cannot ask the kernel first: for a regular file the kernel answers FIONREAD itself,
// from a file size that means nothing here. FIONBIO works on any file. Everything else passes untouched.
#include <linux/sockios.h>
#include <stdarg.h>
#include <sys/ioctl.h>

#include "preload/ours.hpp"
#include "preload/real.hpp"

namespace nvsock::preload {

// Every request takes one argument of at most a register; callers that give none leave one unread.
NVSOCK_HOOK int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list list;
  va_start(list, request);
  void* argument = va_arg(list, void*);
  va_end(list);
  const bool counts = request == FIONREAD || request == SIOCOUTQ;
  if (!counts || !is_ours(fd)) return real::ioctl(fd, request, argument);
  return static_cast<int>(ask(fd, request == FIONREAD ? NVSOCK_IOC_INQ : NVSOCK_IOC_OUTQ, argument));
}

}  // namespace nvsock::preload
