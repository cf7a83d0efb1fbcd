#include "fuse/daemon.hpp"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

namespace csdfs {

Daemon::Daemon(bool foreground) {
  if (foreground) return;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    std::perror("csdfs: pipe");
    std::exit(1);
  }
  const pid_t child = fork();
  if (child < 0) {
    std::perror("csdfs: fork");
    std::exit(1);
  }
  if (child == 0) {
    close(ends[0]);
    to_parent_ = ends[1];
    setsid();
    return;
  }
  close(ends[1]);
  char mounted = 0;
  if (read(ends[0], &mounted, 1) == 1) _exit(0);
  int status = 0;
  waitpid(child, &status, 0);
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

void Daemon::ready() {
  if (to_parent_ < 0) return;
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd <= 2; ++fd) dup2(null, fd);
  if (null > 2) close(null);
  // "/" is never on our own mount, and keeps no other file system busy.
  if (chdir("/") != 0) std::abort();
  const char mounted = 1;
  // Whoever started us has given up meanwhile, and expects no mount.
  if (write(to_parent_, &mounted, 1) != 1) std::raise(SIGTERM);
  close(to_parent_);
  to_parent_ = -1;
}

}  // namespace csdfs
