#include "bench/mount.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace bench {
namespace {

using namespace std::chrono_literals;

constexpr auto mount_limit = 10s;
constexpr auto unmount_limit = 5s;

// From the table, since asking the directory itself would wait for csdfs.
bool is_mounted(const std::string& directory) {
  std::ifstream table("/proc/self/mountinfo");
  for (std::string line; std::getline(table, line);) {
    std::istringstream fields(line);
    std::string field;
    for (int number = 1; number <= 5; ++number) fields >> field;  // proc(5): the fifth is the mount point
    if (field == directory) return true;
  }
  return false;
}

// The table turns readable whenever it changes, so nothing is polled by the clock.
Done wait_until_mounted(const std::string& directory, Child& csdfs) {
  const auto deadline = Clock::now() + mount_limit;
  const Fd table(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
  if (!table) return system_error("open /proc/self/mountinfo");
  while (!is_mounted(directory)) {
    const auto woken = wait_for({{csdfs.ended_fd(), POLLIN}, {table.get(), POLLPRI}}, deadline);
    if (!woken) return Error{woken.error().code, "waiting for csdfs to mount: " + woken.error().text};
    if (*woken == 0) {
      const auto status = csdfs.wait(deadline);
      return Error{EPROTO, "csdfs ended with status " + std::to_string(status ? *status : -1)};
    }
  }
  return std::monostate{};
}

void unmount(const std::string& directory) {
  if (umount2(directory.c_str(), MNT_DETACH) == 0) return;
  if (auto helper = start({{"fusermount3", "-u", "-z", directory}, {}}))
    (void)helper->wait(Clock::now() + unmount_limit);
}

}  // namespace

Result<std::unique_ptr<Mount>> Mount::start(const std::string& csdfs, const std::string& device) {
  std::error_code failure;
  const auto parent = std::filesystem::canonical(std::filesystem::temp_directory_path(failure), failure);
  if (failure) return Error{failure.value(), "temporary directory: " + failure.message()};
  std::string directory = (parent / "nvsock-bench-XXXXXX").string();  // as the mount table will name it
  if (mkdtemp(directory.data()) == nullptr) return system_error("mkdtemp " + directory);

  auto child = bench::start({{csdfs, "-f", device, directory}, {}});
  if (!child) {
    rmdir(directory.c_str());
    return child.error();
  }
  std::unique_ptr<Mount> mount(new Mount(directory, std::move(*child)));
  if (const auto mounted = wait_until_mounted(directory, mount->csdfs_); !mounted) return mounted.error();
  return mount;
}

Mount::~Mount() {
  csdfs_.end();
  if (is_mounted(directory_)) unmount(directory_);
  if (rmdir(directory_.c_str()) < 0)
    std::fprintf(stderr, "nvsock-bench: %s\n", system_error("rmdir " + directory_).text.c_str());
}

}  // namespace bench
