#include "daemon/descriptors.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <climits>

namespace nvsock::daemon {

void occupy_standard_descriptors() {
  int fd = -1;
  do {
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) close(fd);
}

void close_inherited_descriptors() {
  close_range(STDERR_FILENO + 1, UINT_MAX, 0);  // since Linux 5.9
}

}  // namespace nvsock::daemon
