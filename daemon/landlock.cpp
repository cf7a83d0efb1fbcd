#include "daemon/landlock.hpp"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace nvsock::daemon {
namespace {

// The kernel's landlock_ruleset_attr as of version 6, and the newest rights by number: the headers of Debian
// 12 are older than many a kernel.
struct Ruleset {
  uint64_t files;
  uint64_t network;  // since version 4
  uint64_t scopes;   // since version 6
};
constexpr uint64_t truncate_right = 1 << 14;             // LANDLOCK_ACCESS_FS_TRUNCATE, version 3
constexpr uint64_t ioctl_right = 1 << 15;                // LANDLOCK_ACCESS_FS_IOCTL_DEV, version 5
constexpr uint64_t bind_right = 1 << 0;                  // LANDLOCK_ACCESS_NET_BIND_TCP
constexpr uint64_t abstract_scope = 1 << 0;              // LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
constexpr uint64_t signal_scope = 1 << 1;                // LANDLOCK_SCOPE_SIGNAL
constexpr uint64_t rights_of_version_1 = (1 << 13) - 1;  // from EXECUTE to MAKE_SYM

constexpr uint64_t reading = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;

Ruleset rules_of(int version, bool listens) {
  Ruleset rules{.files = rights_of_version_1, .network = 0, .scopes = 0};
  if (version >= 2) rules.files |= LANDLOCK_ACCESS_FS_REFER;
  if (version >= 3) rules.files |= truncate_right;
  if (version >= 5) rules.files |= ioctl_right;
  if (version >= 4 && !listens) rules.network = bind_right;
  if (version >= 6) rules.scopes = abstract_scope | signal_scope;
  return rules;
}

size_t size_of(int version) {
  return version >= 6   ? sizeof(Ruleset)
         : version >= 4 ? offsetof(Ruleset, scopes)
                        : offsetof(Ruleset, network);
}

// False: errno says why. A path that is not there needs no rule.
bool permit(int ruleset, const std::string& path, uint64_t rights) {
  const int fd = open(path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT || errno == ENOTDIR || errno == EACCES;
  struct stat about {};
  landlock_path_beneath_attr rule{.allowed_access = rights, .parent_fd = fd};
  if (fstat(fd, &about) == 0 && !S_ISDIR(about.st_mode)) rule.allowed_access &= LANDLOCK_ACCESS_FS_READ_FILE;
  const bool added = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
  const int code = errno;
  close(fd);
  errno = code;
  return added;
}

bool restrict_self(int ruleset, const Reach& reach) {
  return std::ranges::all_of(reach.read, [&](const auto& path) { return permit(ruleset, path, reading); }) &&
         std::ranges::all_of(
             reach.remove_in,
             [&](const auto& path) { return permit(ruleset, path, LANDLOCK_ACCESS_FS_REMOVE_FILE); }) &&
         syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
}

}  // namespace

int landlock_version() {
#ifdef NVSOCK_INSTRUMENTED
  return 0;
#else
  const long version =
      syscall(SYS_landlock_create_ruleset, nullptr, size_t{0}, LANDLOCK_CREATE_RULESET_VERSION);
  return version < 0 ? 0 : static_cast<int>(version);
#endif
}

Result<void> restrict_reach(const Reach& reach) {
  const int version = landlock_version();
  if (version == 0) return {};
  const Ruleset rules = rules_of(version, reach.listens);
  const auto ruleset = static_cast<int>(syscall(SYS_landlock_create_ruleset, &rules, size_of(version), 0));
  const bool restricted = ruleset >= 0 && restrict_self(ruleset, reach);
  const int code = errno;
  if (ruleset >= 0) close(ruleset);
  if (restricted) return {};
  return Error{code,
               std::string("cannot restrict which files are opened (Landlock): ") + std::strerror(code)};
}

}  // namespace nvsock::daemon
