#include "daemon/system_calls.hpp"

#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <type_traits>
#include <vector>

namespace nvsock::daemon {
namespace {

// Whatever the arguments. A name that this machine does not have is left out: each architecture has its own
// of open() or stat(), say.
constexpr const char* plain_calls[] = {
    // memory
    "brk", "madvise", "membarrier", "mremap", "msync", "munmap",
    // descriptors
    "close", "close_range", "dup", "dup2", "dup3", "eventfd2", "fcntl", "fstat", "lseek", "pipe2", "pread64",
    "preadv", "pwrite64", "pwritev", "read", "readv", "splice", "tee", "vmsplice", "write", "writev",
    // files, to read: nobody's list can tell which
    "access", "chdir", "faccessat", "faccessat2", "getcwd", "getdents64", "lstat", "newfstatat", "open",
    "openat", "readlink", "readlinkat", "stat", "statfs", "fstatfs", "statx",
    // sockets
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom",
    "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
    // waiting
    "clock_nanosleep", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "futex",
    "futex_waitv", "nanosleep", "poll", "ppoll", "pselect6", "restart_syscall", "select", "timerfd_create",
    "timerfd_gettime", "timerfd_settime",
    // threads, signals and the end
    "exit", "exit_group", "getpid", "getppid", "gettid", "rseq", "rt_sigprocmask", "rt_sigreturn",
    "rt_sigtimedwait", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_yield",
    "set_robust_list", "set_tid_address", "sigaltstack",
    // what there is
    "clock_getres", "clock_gettime", "getcpu", "getegid", "geteuid", "getgid", "getgroups", "getrandom",
    "getresgid", "getresuid", "getrusage", "gettimeofday", "getuid", "sysinfo", "time", "times", "uname"};

#ifdef NVSOCK_INSTRUMENTED
// Sanitizers look for leaks from a process of their own, which stops this one; they, and what counts
// coverage, read and write files.
constexpr const char* instrument_calls[] = {
    // processes
    "clone", "execve", "fork", "kill", "personality", "prctl", "ptrace", "tgkill", "tkill", "vfork", "wait4",
    "waitid",
    // memory and limits
    "arch_prctl", "getrlimit", "mincore", "mmap", "mprotect", "prlimit64", "process_vm_readv",
    "sched_setaffinity", "setrlimit",
    // files
    "ftruncate", "getdents", "mkdir", "pipe", "rename", "umask", "unlink"};
#else
constexpr std::array<const char*, 0> instrument_calls{};
#endif

constexpr scmp_datum_t request_mask = 0xffffffff;  // of ioctl(2): the kernel looks at 32 bits
constexpr scmp_datum_t type_mask = 0xf;            // of socket(2): without SOCK_NONBLOCK and SOCK_CLOEXEC

// Rules are collected until one fails: then all of them have.
class Filter {
 public:
  explicit Filter(uint32_t otherwise) : context_(seccomp_init(otherwise)) {
    if (!context_) error_ = ENOMEM;
  }

  // `call` with arguments as they are given, joined by "and".
  void add(uint32_t action, const char* call, std::initializer_list<scmp_arg_cmp> arguments = {}) {
    const int number = seccomp_syscall_resolve_name(call);
    if (error_ != 0 || number < 0) return;
    error_ = -seccomp_rule_add_array(context_.get(), action, number, static_cast<unsigned>(arguments.size()),
                                     arguments.begin());
  }
  void allow(const char* call, std::initializer_list<scmp_arg_cmp> arguments = {}) {
    add(SCMP_ACT_ALLOW, call, arguments);
  }

  Result<void> load(bool all_threads) {
    if (error_ == 0) error_ = -seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_TSYNC, all_threads);
    // It is set already, and prctl(2) would not be allowed.
    if (error_ == 0) error_ = -seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_NNP, false);
    // A tree instead of a list: calls whose arguments matter, which the kernel decides anew each time, are
    // found in a few steps.
    constexpr uint32_t tree = 2;
    if (error_ == 0) error_ = -seccomp_attr_set(context_.get(), SCMP_FLTATR_CTL_OPTIMIZE, tree);
    if (error_ == 0) error_ = -seccomp_load(context_.get());
    if (error_ == 0) return {};
    return Error{error_, std::string("cannot restrict system calls: ") + std::strerror(error_) +
                             "; seccomp=none does without"};
  }

 private:
  struct Release {
    void operator()(void* context) const { seccomp_release(context); }
  };
  std::unique_ptr<std::remove_pointer_t<scmp_filter_ctx>, Release> context_;
  int error_ = 0;
};

uint32_t action_of(OnForbidden action, bool told) {
  if (action == OnForbidden::log) return SCMP_ACT_LOG;
  return told ? SCMP_ACT_TRAP : SCMP_ACT_KILL_PROCESS;
}

constexpr scmp_arg_cmp equal(unsigned argument, scmp_datum_t value) {
  return {.arg = argument, .op = SCMP_CMP_EQ, .datum_a = value, .datum_b = 0};
}

constexpr scmp_arg_cmp masked(unsigned argument, scmp_datum_t mask, scmp_datum_t value) {
  return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

void allow_sockets(Filter& filter, bool local) {
  for (const int family : {AF_INET, AF_INET6}) {
    for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
      filter.allow("socket", {equal(0, family), masked(1, type_mask, type)});
    }
  }
  // getaddrinfo() asks for the machine's addresses.
  filter.allow("socket", {equal(0, AF_NETLINK), equal(2, 0)});
  if (!local) return;
  filter.allow("socket", {equal(0, AF_UNIX)});
  filter.allow("socket", {equal(0, AF_VSOCK)});
}

void allow_requests(Filter& filter, std::initializer_list<unsigned long> requests) {
  for (const unsigned long request : requests) {
    filter.allow("ioctl", {masked(1, request_mask, request & request_mask)});
  }
}

void allow_by_arguments(Filter& filter) {
  filter.allow("mmap", {masked(2, PROT_EXEC, 0)});
  filter.allow("mmap", {masked(2, PROT_EXEC | PROT_WRITE, PROT_EXEC)});  // libraries
  filter.allow("mprotect", {masked(2, PROT_EXEC, 0)});
  filter.allow("clone", {masked(0, CLONE_THREAD, CLONE_THREAD)});
  filter.allow("tgkill", {equal(0, static_cast<scmp_datum_t>(getpid()))});
  filter.allow("prlimit64", {equal(0, 0), equal(2, 0)});
  for (const int what : {PR_SET_NAME, PR_GET_NAME, PR_SET_VMA}) {
    filter.allow("prctl", {equal(0, static_cast<scmp_datum_t>(what))});
  }
  filter.allow("rt_sigaction", {{.arg = 0, .op = SCMP_CMP_NE, .datum_a = SIGSYS, .datum_b = 0}});
  allow_requests(filter, {FIONBIO, FIONREAD, TIOCOUTQ, TCGETS, SIOCGIFINDEX, SIOCGIFNAME});
}

// --- the line ---

const char* program_name = "";
// By number, because the handler may not ask libseccomp, which allocates.
std::vector<std::string> call_names;

void on_forbidden(int, siginfo_t* info, void*) {
  const auto number = static_cast<size_t>(info->si_syscall);
  const char* const name = number < call_names.size() ? call_names[number].c_str() : "";
  char text[256];
  const int size =
      std::snprintf(text, sizeof text,
                    "%s: system call %zu %s is not among those that it makes: it ends here; seccomp=log "
                    "lets such calls pass\n",
                    program_name, number, name);
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, static_cast<size_t>(size));
  // The handler is gone by now (SA_RESETHAND): this time it is the end.
  syscall(SYS_tgkill, getpid(), gettid(), SIGSYS);
  _exit(128 + SIGSYS);
}

bool tell_of_forbidden(const char* program) {
  constexpr int end_of_calls = 600;  // Linux 6.18 has numbers up to 470
  program_name = program;
  call_names.resize(end_of_calls);
  for (int number = 0; number < end_of_calls; ++number) {
    char* const name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
    if (name != nullptr) call_names[static_cast<size_t>(number)] = '(' + std::string(name) + ')';
    std::free(name);
  }
  struct sigaction action {};
  action.sa_sigaction = on_forbidden;
  action.sa_flags = SA_SIGINFO | static_cast<int>(SA_RESETHAND) | SA_NODEFER;
  return sigaction(SIGSYS, &action, nullptr) == 0;
}

}  // namespace

std::optional<OnForbidden> parse_on_forbidden(std::string_view text) {
  if (text == "kill") return OnForbidden::kill;
  if (text == "log") return OnForbidden::log;
  if (text == "none") return OnForbidden::none;
  return std::nullopt;
}

Result<void> restrict_system_calls(const char* program, OnForbidden action, const SystemCalls& calls,
                                   bool told) {
  if (action == OnForbidden::none) return {};
  if (action == OnForbidden::kill && told && !tell_of_forbidden(program)) {
    const int code = errno;
    return Error{code, std::string("cannot restrict system calls: sigaction: ") + std::strerror(code)};
  }
  Filter filter(action_of(action, told));
  for (const char* call : instrument_calls) filter.allow(call);
  for (const char* call : plain_calls) filter.allow(call);
  allow_by_arguments(filter);
  allow_sockets(filter, calls.local_sockets);
  filter.add(SCMP_ACT_ERRNO(ENOSYS), "clone3");
  if (action == OnForbidden::kill && std::size(instrument_calls) == 0)
    filter.add(SCMP_ACT_ERRNO(EPERM), "clone", {masked(0, CLONE_THREAD, 0)});
  if (calls.mounts) {
    filter.allow("mount");
    filter.allow("umount2");
    // For forbid_mounting().
    filter.allow("seccomp", {equal(0, SECCOMP_SET_MODE_FILTER),
                             masked(1, SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_TSYNC)});
  }
  if (calls.commands_nvme) {
    for (const char* call : {"io_uring_setup", "io_uring_enter", "io_uring_register"}) filter.allow(call);
    allow_requests(filter, {NVME_IOCTL_ID, NVME_IOCTL_ADMIN_CMD, NVME_IOCTL_ADMIN64_CMD});
  }
  if (calls.enters_networks) filter.allow("setns", {equal(1, CLONE_NEWNET)});
  if (calls.socket_files) {
    filter.allow("chmod");
    filter.allow("fchmodat");
    filter.allow("unlink");
    filter.allow("unlinkat", {equal(2, 0)});
  }
  return filter.load(false);
}

Result<void> forbid_mounting(OnForbidden action, bool told) {
  if (action == OnForbidden::none) return {};
  Filter filter(SCMP_ACT_ALLOW);
  filter.add(action_of(action, told), "mount");
  return filter.load(true);
}

}  // namespace nvsock::daemon
