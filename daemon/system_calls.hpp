// Which system calls a daemon may still make once it has started: a seccomp filter, so that whoever finds a
// hole in it finds no way to the rest of the kernel, and starts no programs.
//
// The list is what the tests use (found by strace(1) over the integration tests), with what another version
// of the C library would use in its place. Where it is cheap, arguments are looked at too: families of
// sockets, requests of ioctl(2), memory that is both written and run, threads but no processes. What it
// cannot look at are names of files: that is Landlock's part (daemon/landlock.hpp).
//
// A call that is not on the list never happens. With `kill` the process is told (SIGSYS), writes one line
// that names the call, and dies of the signal; the handler of that signal cannot be replaced, for that too is
// forbidden. Where nobody sees the line (`told` is false) the kernel ends the process at once, and its log
// has the number of the call. clone3(2) is the exception: the filter cannot see its flags, so it does not
// exist (ENOSYS), and the C library makes its threads with clone(2). A process that is to be made is refused
// with EPERM.
//
// Builds with sanitizers, or that count coverage, allow what those need besides: files, processes, ptrace(2).
// Sources: seccomp(2), libseccomp.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "libnvsock/base/result.hpp"

namespace nvsock::daemon {

enum class OnForbidden {
  kill,
  log,   // it happens, and the kernel's log has a line (type=1326)
  none,  // there is no filter
};

// "kill", "log" or "none"; nothing: another word.
std::optional<OnForbidden> parse_on_forbidden(std::string_view text);

// What not every daemon does.
struct SystemCalls {
  bool mounts = false;           // mount(2), umount2(2)
  bool commands_nvme = false;    // ioctl(2) and io_uring on /dev/nvmeN
  bool enters_networks = false;  // setns(2), network namespaces alone
  bool socket_files = false;     // unlink(2) and chmod(2), of unix sockets it listens on
  bool local_sockets = false;    // AF_UNIX and AF_VSOCK, of which those that are open stay
};

// From here on nothing but these. REQUIRES: one thread, no_new_privs or CAP_SYS_ADMIN, and a program name
// that outlives the process. ENOSYS: the kernel has no seccomp filters.
Result<void> restrict_system_calls(const char* program, OnForbidden action, const SystemCalls& calls,
                                   bool told);

// After mounting there is nothing to mount any more, in all threads. REQUIRES: restrict_system_calls() with
// the same action.
Result<void> forbid_mounting(OnForbidden action, bool told);

}  // namespace nvsock::daemon
