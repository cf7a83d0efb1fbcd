// What a process may still do behind the filter of the daemons, and how it ends when it does something else.
#include "daemon/system_calls.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <thread>

namespace nvsock::daemon {
namespace {

using testing::ExitedWithCode;
using testing::KilledBySignal;

constexpr int filter_failed = 99;

// ThreadSanitizer keeps the handler of a signal to itself: the process ends by the handler's own exit
// instead.
bool ended_by_handler(int status) {
#ifdef __SANITIZE_THREAD__
  if (ExitedWithCode(128 + SIGSYS)(status)) return true;
#endif
  return KilledBySignal(SIGSYS)(status);
}

// Runs in a process of its own, which keeps the filter: the status is what `work` returns.
template <typename Work>
void behind_filter(OnForbidden action, const SystemCalls& calls, bool told, Work work) {
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (!restrict_system_calls("daemon", action, calls, told)) _exit(filter_failed);
  _exit(work());
}

template <typename Work>
void behind_filter(Work work) {
  behind_filter(OnForbidden::kill, {}, true, work);
}

int keyctl() {
  return static_cast<int>(syscall(SYS_keyctl, 0, 0, 0, 0, 0)) == 0 ? 0 : 1;
}

TEST(SystemCalls, OneThatIsForbiddenIsToldAndEndsTheProcess) {
  EXPECT_EXIT(behind_filter(keyctl), ended_by_handler, "^daemon: system call [0-9]+ \\(keyctl\\) ");
}

TEST(SystemCalls, WhereNobodyReadsTheKernelEndsIt) {
  EXPECT_EXIT(behind_filter(OnForbidden::kill, {}, false, keyctl), KilledBySignal(SIGSYS), "^$");
}

TEST(SystemCalls, TheyOnlyGoToTheKernelsLog) {
  EXPECT_EXIT(behind_filter(OnForbidden::log, {}, true, [] { return keyctl() == filter_failed ? 1 : 0; }),
              ExitedWithCode(0), "^$");
}

TEST(SystemCalls, WithoutAFilterAllPass) {
  const auto status = [] { return prctl(PR_GET_SECCOMP, 0, 0, 0, 0); };
  EXPECT_EXIT(behind_filter(OnForbidden::none, {}, true, status), ExitedWithCode(0), "^$");
}

#ifndef __SANITIZE_THREAD__
TEST(SystemCalls, TheHandlerCannotBeReplaced) {
  EXPECT_EXIT(behind_filter([] { return std::signal(SIGSYS, SIG_IGN) == SIG_ERR ? 1 : 0; }),
              KilledBySignal(SIGSYS), "sigaction");
}
#endif

TEST(SystemCalls, WhatTheDaemonsDoPasses) {
  const auto work = [] {
    int heard = 0;
    std::thread([&] { heard = 1; }).join();
    const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    std::signal(SIGTERM, SIG_IGN);
    raise(SIGTERM);
    return heard == 1 && fd >= 0 ? 0 : 1;
  };
  EXPECT_EXIT(behind_filter(work), ExitedWithCode(0), "^$");
}

TEST(SystemCalls, OfSocketsThereAreOnlyThoseOfTheInternetAndWhatWasAskedFor) {
  const auto make = [](int family, int type) {
    return [=] { return socket(family, type, 0) < 0 && errno != EAFNOSUPPORT ? 1 : 0; };
  };
  EXPECT_EXIT(behind_filter(make(AF_PACKET, SOCK_DGRAM)), ended_by_handler, "socket");
  EXPECT_EXIT(behind_filter(make(AF_INET, SOCK_RAW)), ended_by_handler, "socket");
  EXPECT_EXIT(behind_filter(make(AF_UNIX, SOCK_STREAM)), ended_by_handler, "socket");
  EXPECT_EXIT(behind_filter(OnForbidden::kill, {.local_sockets = true}, true, make(AF_UNIX, SOCK_STREAM)),
              ExitedWithCode(0), "^$");
}

TEST(SystemCalls, MountingEndsWhenItIsForbidden) {
  const auto mount_nothing = [] { return mount("none", "/nowhere", "tmpfs", 0, nullptr) == 0 ? 1 : 0; };
  const auto forbid_first = [&] {
    // A thread from before, too: it ends the process, which it could not if it were free.
    if (!forbid_mounting(OnForbidden::kill, true)) return filter_failed;
    std::thread([&] { mount_nothing(); }).join();
    return 0;
  };
  EXPECT_EXIT(behind_filter(mount_nothing), ended_by_handler, "mount");
  EXPECT_EXIT(behind_filter(OnForbidden::kill, {.mounts = true}, true, mount_nothing), ExitedWithCode(0),
              "^$");
  EXPECT_EXIT(behind_filter(OnForbidden::kill, {.mounts = true}, true, forbid_first), ended_by_handler,
              "mount");
}

#ifndef NVSOCK_INSTRUMENTED
TEST(SystemCalls, NoProgramIsStartedAndNoProcessMade) {
  const auto run = [] { return execl("/bin/true", "true", nullptr); };
  const auto make = [] { return fork() < 0 && errno == EPERM ? 0 : 1; };
  EXPECT_EXIT(behind_filter(run), KilledBySignal(SIGSYS), "execve");
  EXPECT_EXIT(behind_filter(make), ExitedWithCode(0), "^$");
}

TEST(SystemCalls, NoMemoryIsBothWrittenAndRun) {
  const auto take = [](int protection) {
    return [=] { return mmap(nullptr, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED; };
  };
  EXPECT_EXIT(behind_filter(take(PROT_READ | PROT_WRITE)), ExitedWithCode(0), "^$");
  EXPECT_EXIT(behind_filter(take(PROT_READ | PROT_EXEC)), ExitedWithCode(0), "^$");
  EXPECT_EXIT(behind_filter(take(PROT_WRITE | PROT_EXEC)), KilledBySignal(SIGSYS), "mmap");
}
#endif

}  // namespace
}  // namespace nvsock::daemon
