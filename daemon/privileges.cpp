#include "daemon/privileges.hpp"

#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "libnvsock/base/quoted.hpp"

namespace nvsock::daemon {
namespace {

Error failure(const std::string& what) {
  const int code = errno;
  return {code, "cannot " + what + ": " + std::strerror(code)};
}

uint64_t mask_of(const std::vector<int>& capabilities) {
  uint64_t mask = 0;
  for (const int capability : capabilities) mask |= uint64_t{1} << capability;
  return mask;
}

// The two 32-bit halves, as capset(2) has them.
using Halves = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

bool get_capabilities(Halves& halves) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  return syscall(SYS_capget, &header, halves.data()) == 0;
}

bool keep_capabilities(uint64_t mask) {
  Halves halves;
  if (!get_capabilities(halves)) return false;
  for (size_t i = 0; i < halves.size(); ++i) {
    halves[i].permitted &= static_cast<uint32_t>(mask >> (32 * i));
    halves[i].effective = halves[i].permitted;
    halves[i].inheritable = 0;
  }
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  return syscall(SYS_capset, &header, halves.data()) == 0;
}

// What a program that it starts could get. Needs CAP_SETPCAP: who has not that has no root either.
void bound_capabilities(uint64_t mask) {
  for (int capability = 0; capability < 64; ++capability) {
    if ((mask >> capability & 1) == 0 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) return;
  }
}

Result<void> become(const std::string& name) {
  errno = 0;
  const passwd* const user = getpwnam(name.c_str());
  if (user == nullptr) {
    return Error{errno != 0 ? errno : ENOENT, "there is no user " + quoted(name)};
  }
  if (user->pw_uid == geteuid() && user->pw_uid == getuid() && user->pw_gid == getegid()) return {};
  // Across setuid() the kernel takes all capabilities unless it is told not to.
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 || initgroups(name.c_str(), user->pw_gid) != 0 ||
      setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0 || prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) != 0)
    return failure("become user " + quoted(name));
  return {};
}

}  // namespace

Result<void> drop_privileges(const Kept& kept) {
  const uint64_t mask = mask_of(kept.capabilities);
  bound_capabilities(mask);
  if (!kept.user.empty()) {
    if (const Result<void> became = become(kept.user); !became) return became;
  }
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (!keep_capabilities(mask)) return failure("give up capabilities");
  if (!kept.setuid_programs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return failure("set no_new_privs");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return failure("become undumpable");
  return {};
}

}  // namespace nvsock::daemon
