// Becoming a daemon only once the mount works, so that `csdfs ... && use it` is right.
// Threads: the main thread. Both may end the process, with a sentence on standard error.
#pragma once

namespace csdfs {

class Daemon {
 public:
  // Forks, unless FOREGROUND. The parent stays until the child calls ready() and then exits 0, or until the
  // child is gone and then exits with its code; it does not return. Call before any thread exists.
  explicit Daemon(bool foreground);

  // In the child: the mount works. Lets go of the terminal and the working directory. SIGTERM comes if the
  // parent was killed meanwhile. REQUIRES: SIGPIPE is ignored.
  void ready();

 private:
  int to_parent_ = -1;
};

}  // namespace csdfs
