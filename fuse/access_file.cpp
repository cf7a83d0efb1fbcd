#include "fuse/access_file.hpp"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "libnvsock/base/quoted.hpp"

namespace csdfs {
namespace {

using nvsock::Error;
using nvsock::printable;
using nvsock::quoted;
using nvsock::Result;

// Of one account; a group is as large as its list of members.
constexpr size_t largest_entry = 1024 * 1024;

// getpwnam_r() and getgrnam_r() in one form.
template <typename Entry, uint32_t Entry::*id>
Result<uint32_t> look_up(const char* kind, const std::string& name,
                         int (*ask)(const char*, Entry*, char*, size_t, Entry**)) {
  std::string buffer(4096, '\0');
  Entry entry{}, *found = nullptr;
  int error = ERANGE;
  while ((error = ask(name.c_str(), &entry, buffer.data(), buffer.size(), &found)) == ERANGE &&
         buffer.size() < largest_entry) {
    buffer.resize(2 * buffer.size());
  }
  if (found != nullptr) return found->*id;
  // What the manual pages say of unknown names: not told alike everywhere.
  if (error == 0 || error == ENOENT || error == ESRCH || error == EBADF || error == EPERM) {
    return Error{ENOENT, std::string("there is no ") + kind + " " + quoted(name)};
  }
  return Error{error,
               std::string(kind) + " " + quoted(name) + " cannot be looked up: " + std::strerror(error)};
}

Accounts system_accounts() {
  return {
      .user =
          [](const std::string& name) { return look_up<passwd, &passwd::pw_uid>("user", name, getpwnam_r); },
      .group =
          [](const std::string& name) { return look_up<group, &group::gr_gid>("group", name, getgrnam_r); }};
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

}  // namespace

Result<AccessRules> load_access_rules(const std::string& path, uid_t owner) {
  const std::string file = "access file " + quoted(path);
  const auto failed = [&](int code) { return Error{code, file + ": " + std::strerror(code)}; };
  const Descriptor fd(
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));  // no waiting for a pipe
  if (fd.get() < 0) return failed(errno);
  struct stat about {};
  if (fstat(fd.get(), &about) != 0) return failed(errno);
  if (!S_ISREG(about.st_mode)) return Error{EINVAL, file + " is not a regular file"};
  if (about.st_uid != owner && about.st_uid != 0) {
    return Error{EACCES, file + " belongs to user " + std::to_string(about.st_uid) +
                             ", who can change it; chown it to user " + std::to_string(owner)};
  }
  if ((about.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return Error{EACCES, file + " may be written by others than its owner; chmod go-w it"};
  }
  std::string text(longest_access_file + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0) return failed(errno);
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > longest_access_file) {
    return Error{EFBIG, file + " is longer than " + std::to_string(longest_access_file) + " bytes"};
  }
  text.resize(size);
  return AccessRules::parse(text, printable(path), system_accounts());
}

}  // namespace csdfs
