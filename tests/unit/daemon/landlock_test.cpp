// What a process still reaches behind the rules of csd-target. Each in a process of its own, which keeps
// them.
#include "daemon/landlock.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

namespace nvsock::daemon {
namespace {

using testing::ExitedWithCode;

class Landlock : public testing::Test {
 protected:
  void SetUp() override {
    if (landlock_version() == 0) GTEST_SKIP() << "this kernel, or this build, has no Landlock";
    std::string name = testing::TempDir() + "landlockXXXXXX";
    folder_ = mkdtemp(name.data());
    for (const char* inside : {"/read", "/other"}) {
      std::filesystem::create_directory(folder_ + inside);
      std::ofstream(folder_ + inside + "/file") << "text";
    }
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  template <typename Work>
  void behind_rules(const Reach& reach, Work work) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    _exit(restrict_reach(reach) ? work() : 99);
  }

  // The errno of opening, or 0.
  int open_there(const std::string& name, int flags) {
    const int fd = open((folder_ + name).c_str(), flags, 0600);
    return fd >= 0 ? 0 : errno;
  }

  std::string folder_;
};

TEST_F(Landlock, OnlyWhatIsNamedIsRead) {
  const Reach reach{.read = {folder_ + "/read", "/nowhere"}};
  EXPECT_EXIT(behind_rules(reach, [&] { return open_there("/read/file", O_RDONLY); }), ExitedWithCode(0), "");
  EXPECT_EXIT(behind_rules(reach, [&] { return open_there("/other/file", O_RDONLY); }),
              ExitedWithCode(EACCES), "");
}

TEST_F(Landlock, NothingIsWrittenMadeOrStarted) {
  const Reach reach{.read = {folder_, "/dev/null"}};
  EXPECT_EXIT(behind_rules(reach, [&] { return open_there("/read/file", O_WRONLY); }), ExitedWithCode(EACCES),
              "");
  EXPECT_EXIT(behind_rules(reach, [&] { return open_there("/new", O_CREAT | O_RDWR); }),
              ExitedWithCode(EACCES), "");
  EXPECT_EXIT(behind_rules(reach, [] { return execl("/bin/true", "true", nullptr) == 0 ? 0 : errno; }),
              ExitedWithCode(EACCES), "");
}

TEST_F(Landlock, FilesAreRemovedOnlyWhereThatIsAskedFor) {
  const auto remove = [&](const char* name) { return unlink((folder_ + name).c_str()) == 0 ? 0 : errno; };
  const Reach reach{.remove_in = {folder_ + "/other"}};
  EXPECT_EXIT(behind_rules(reach, [&] { return remove("/read/file"); }), ExitedWithCode(EACCES), "");
  EXPECT_EXIT(behind_rules(reach, [&] { return remove("/other/file"); }), ExitedWithCode(0), "");
}

TEST_F(Landlock, ListeningIsRefusedUnlessItIsAskedFor) {
  if (landlock_version() < 4) GTEST_SKIP() << "this kernel has no rules of Landlock for networks";
  const auto listen_somewhere = [] {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    return bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0 ? 0 : errno;
  };
  EXPECT_EXIT(behind_rules({}, listen_somewhere), ExitedWithCode(EACCES), "");
  EXPECT_EXIT(behind_rules({.listens = true}, listen_somewhere), ExitedWithCode(0), "");
}

TEST_F(Landlock, OtherProcessesAreSentNoSignals) {
  if (landlock_version() < 6) GTEST_SKIP() << "this kernel has no rules of Landlock for signals";
  EXPECT_EXIT(behind_rules({}, [] { return kill(getppid(), 0) == 0 ? 0 : errno; }), ExitedWithCode(EPERM),
              "");
  EXPECT_EXIT(behind_rules({}, [] { return kill(getpid(), 0) == 0 ? 0 : errno; }), ExitedWithCode(0), "");
}

}  // namespace
}  // namespace nvsock::daemon
