#include "bench/process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

namespace bench {
namespace {

using namespace std::chrono_literals;

// csdfs may still have to drain what streams have accepted and to unmount.
constexpr auto terminate_patience = 5s;
// A killed process is gone at once, unless it hangs in a file system that no longer answers.
constexpr auto kill_patience = 2s;
// A client prints a line; anything longer is not one of ours.
constexpr size_t max_output = 4096;

int signals_fd = -1;  // lives as long as the program

sigset_t ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, number);
  return set;
}

int poll_until(std::vector<pollfd>& fds, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    const int timeout = static_cast<int>(std::clamp<int64_t>(left.count(), 0, 3'600'000));
    const int ready = poll(fds.data(), fds.size(), timeout);
    if (ready >= 0 || errno != EINTR) return ready;
  }
}

int execute(const Command& command) {
  stay_on(command.cpu);
  for (const auto& [name, value] : command.environment) setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> argv;
  for (const std::string& argument : command.argv) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  std::fprintf(stderr, "nvsock-bench: cannot run %s: %s\n", argv[0], std::strerror(errno));
  return 127;
}

}  // namespace

Error system_error(const std::string& what) {
  const int code = errno;
  return {code, what + ": " + std::strerror(code)};
}

Fd::~Fd() {
  if (fd_ >= 0) close(fd_);
}

Done hold_signals() {
  const sigset_t set = ending_signals();
  if (sigprocmask(SIG_BLOCK, &set, nullptr) < 0) return system_error("sigprocmask");
  signals_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_fd < 0) return system_error("signalfd");
  return std::monostate{};
}

Result<size_t> wait_for(const std::vector<Awaited>& fds, Clock::time_point deadline) {
  std::vector<pollfd> polled;
  polled.reserve(fds.size() + 1);
  for (const Awaited& awaited : fds) polled.push_back({awaited.fd, awaited.events, 0});
  polled.push_back({signals_fd, POLLIN, 0});  // never read, so that it stays readable

  if (poll_until(polled, deadline) < 0) return system_error("poll");
  if (polled.back().revents != 0) return Error{EINTR, "interrupted"};
  const auto ready =
      std::find_if(polled.begin(), polled.end(), [](const pollfd& p) { return p.revents != 0; });
  if (ready == polled.end()) return Error{ETIMEDOUT, "no answer in time"};
  return static_cast<size_t>(ready - polled.begin());
}

Result<Child> Child::start(const std::function<int()>& body) {
  std::fflush(nullptr);  // what is still buffered must not be written twice
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return system_error("fork");
  if (pid == 0) {
    const sigset_t set = ending_signals();
    sigprocmask(SIG_UNBLOCK, &set, nullptr);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    _exit(getppid() == parent ? body() : EXIT_FAILURE);
  }
  // Not pidfd_open(): glibc 2.36 declares it without C linkage. The descriptor is close-on-exec by itself.
  Fd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    const Error error = system_error("pidfd_open");
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return error;
  }
  return Child(pid, std::move(pidfd));
}

Result<int> Child::wait(Clock::time_point deadline) {
  if (pidfd_) {
    if (const auto ended = wait_for({{pidfd_.get(), POLLIN}}, deadline); !ended) return ended.error();
    reap(0ms);
  }
  return status_;
}

// Not interruptible: this is how interruptions end.
bool Child::reap(std::chrono::milliseconds patience) {
  std::vector<pollfd> polled{{pidfd_.get(), POLLIN, 0}};
  if (poll_until(polled, Clock::now() + patience) <= 0) return false;
  int status = 0;
  waitpid(pid_, &status, 0);
  status_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  pidfd_ = Fd();
  return true;
}

void Child::end() {
  if (!pidfd_) return;
  kill(pid_, SIGTERM);
  if (reap(terminate_patience)) return;
  kill(pid_, SIGKILL);
  if (!reap(kill_patience))
    std::fprintf(stderr, "nvsock-bench: process %d cannot be killed; leaving it\n", pid_);
}

std::vector<int> usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  if (cpus.empty()) cpus.push_back(any_cpu);  // more CPUs than the set can name
  return cpus;
}

void stay_on(int cpu) {
  if (cpu == any_cpu) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

Result<Child> start(const Command& command) {
  return Child::start([&] {
    dup2(STDERR_FILENO, STDOUT_FILENO);
    return execute(command);
  });
}

Result<std::string> output_of(const Command& command, Clock::time_point deadline) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) < 0) return system_error("pipe");
  const Fd reader(ends[0]);
  Fd writer(ends[1]);
  auto child = Child::start([&] {
    dup2(writer.get(), STDOUT_FILENO);
    return execute(command);
  });
  if (!child) return child.error();
  writer = Fd();

  std::string output;
  while (output.size() < max_output) {
    if (const auto ready = wait_for({{reader.get(), POLLIN}}, deadline); !ready) return ready.error();
    std::array<char, 512> buffer;
    const ssize_t got = read(reader.get(), buffer.data(), buffer.size());
    if (got < 0) return system_error("read from " + command.argv[0]);
    if (got == 0) break;
    output.append(buffer.data(), static_cast<size_t>(got));
  }
  const auto status = child->wait(deadline);
  if (!status) return status.error();
  if (*status != 0) return Error{EPROTO, "it ended with status " + std::to_string(*status)};
  return output;
}

bool in_path(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');)
    if (access(folder.append("/").append(name).c_str(), X_OK) == 0) return true;
  return false;
}

Result<std::chrono::milliseconds> cpu_time(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const size_t name_end = text.rfind(')');  // the name before it may hold anything
  if (name_end == std::string::npos) return Error{ESRCH, "cannot read " + path};

  std::istringstream fields(text.substr(name_end + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;  // proc(5): utime is field 14, stime 15
  int64_t user = 0;
  int64_t system = 0;
  fields >> user >> system;
  return std::chrono::milliseconds((user + system) * 1000 / sysconf(_SC_CLK_TCK));
}

}  // namespace bench
