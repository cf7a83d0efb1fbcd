#include "preload/connect_error.hpp"

#include <string.h>

#include "preload/log.hpp"
#include "preload/ours.hpp"

namespace nvsock::preload {

int told_by_connect(int file_error) {
  const int told = connect_errno(file_error);
  if (told != file_error) {
    log_line([&](LogText& line) {
      const char* const name = ::strerrorname_np(file_error);
      line << settings().mount.view() << " says " << (name != nullptr ? name : "an unknown error")
           << ", which connect() tells as " << ::strerrorname_np(told);
    });
  }
  return told;
}

int take_connect_error(int fd) {
  int error = 0;
  ask(fd, NVSOCK_IOC_ERROR, &error);
  return error == 0 ? 0 : told_by_connect(error);
}

}  // namespace nvsock::preload
