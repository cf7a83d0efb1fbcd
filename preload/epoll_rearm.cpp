#include "preload/epoll_rearm.hpp"

#include <dirent.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "preload/descriptor.hpp"
#include "preload/text.hpp"

// The files are read with system calls into the stack: opendir() and stdio allocate. /proc/self would be
// empty once the main thread has ended; /proc/thread-self is not.
namespace nvsock::preload {
namespace {

constexpr std::string_view kFds = "/proc/thread-self/fd/";
constexpr std::string_view kFdInfo = "/proc/thread-self/fdinfo/";
constexpr std::string_view kEpollLink = "anon_inode:[eventpoll]";
constexpr std::size_t kBufferSize = 2048;

using ProcPath = Text<48>;

Descriptor open_proc(std::string_view directory, int fd, int flags) {
  ProcPath path;
  path << directory;
  if (fd >= 0) path << fd;
  return Descriptor(::syscall(SYS_openat, AT_FDCWD, path.c_str(), O_RDONLY | O_CLOEXEC | flags));
}

// An epoll's inode has no file type. That rules out nearly all descriptors at a tenth of the price of their
// link's text; told not to synchronise, a network or FUSE filesystem is not asked either.
bool has_no_type(int fd) {
  struct statx file;
  constexpr int kFlags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  return ::syscall(SYS_statx, fd, "", kFlags, 0, &file) != 0 || (file.stx_mode & S_IFMT) == 0;
}

bool is_epoll(int fd) {
  if (!has_no_type(fd)) return false;
  ProcPath path;
  path << kFds << fd;
  char target[kEpollLink.size() + 1];
  const ssize_t size = ::readlink(path.c_str(), target, sizeof target);
  return size > 0 && std::string_view(target, static_cast<std::size_t>(size)) == kEpollLink;
}

// "123" is 123; anything else, "." and ".." in particular, is -1.
int descriptor_number(const char* name) {
  long value = 0;
  for (const char* c = name; *c != '\0'; ++c) {
    if (*c < '0' || *c > '9' || value > 0x7fffffff / 10) return -1;
    value = value * 10 + (*c - '0');
  }
  return *name == '\0' ? -1 : static_cast<int>(value);
}

// The value of `label` ("tfd:") in a line of fdinfo.
bool field(std::string_view line, std::string_view label, unsigned base, std::uint64_t& value) {
  const std::size_t at = line.find(label);
  if (at == std::string_view::npos) return false;
  line.remove_prefix(at + label.size());
  while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
  value = 0;
  bool any = false;
  for (; !line.empty(); line.remove_prefix(1), any = true) {
    const char c = line.front();
    const unsigned digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10u : base;
    if (digit >= base) break;
    value = value * base + digit;
  }
  return any;
}

// Calls `use` with each line of the file. A line longer than the buffer ends it: epoll's are 90 bytes.
template <typename Use>
void for_each_line(int file, Use use) {
  char buffer[kBufferSize];
  std::size_t held = 0;
  for (;;) {
    const long n = ::syscall(SYS_read, file, buffer + held, sizeof buffer - held);
    if (n <= 0) return;
    std::string_view rest(buffer, held + static_cast<std::size_t>(n));
    for (std::size_t end; (end = rest.find('\n')) != std::string_view::npos; rest.remove_prefix(end + 1)) {
      use(std::string_view(rest.data(), end));
    }
    held = rest.size();
    memmove(buffer, rest.data(), held);
  }
}

}  // namespace

// One line a registration: "tfd:  5 events:  19 data:  5  pos:0 ino:1f2e sdev:9", numbers but tfd and pos
// in hexadecimal. The inode tells our socket from an earlier one that had its number and lives on in a
// duplicate.
void EpollRegistrations::read_epoll(int epoll, int fd, std::uint64_t inode) {
  const Descriptor file = open_proc(kFdInfo, epoll, 0);
  if (!file.valid()) return;
  for_each_line(file.get(), [&](std::string_view line) {
    std::uint64_t target = 0, events = 0, data = 0, target_inode = 0;
    if (!field(line, "tfd:", 10, target) || target != static_cast<std::uint64_t>(fd)) return;
    if (!field(line, "events:", 16, events) || !field(line, "data:", 16, data)) return;
    if (field(line, "ino:", 16, target_inode) && target_inode != inode) return;
    if (count_ < kMaxRegistrations) found_[count_++] = {epoll, static_cast<std::uint32_t>(events), data};
  });
}

void EpollRegistrations::find(int fd) {
  count_ = 0;
  struct stat socket;
  if (::syscall(SYS_newfstatat, fd, "", &socket, AT_EMPTY_PATH) != 0) return;
  const Descriptor directory = open_proc(kFds, -1, O_DIRECTORY);
  if (!directory.valid()) return;

  alignas(dirent64) char entries[kBufferSize];
  for (ssize_t size; (size = ::getdents64(directory.get(), entries, sizeof entries)) > 0;) {
    for (const char* at = entries; at < entries + size;) {
      const auto* entry = reinterpret_cast<const dirent64*>(at);
      at += entry->d_reclen;
      const int candidate = descriptor_number(entry->d_name);
      if (candidate >= 0 && is_epoll(candidate)) read_epoll(candidate, fd, socket.st_ino);
    }
  }
}

void EpollRegistrations::restore(int fd) const {
  for (std::size_t i = 0; i < count_; ++i) {
    epoll_event event{};
    event.events = found_[i].events;
    event.data.u64 = found_[i].data;
    ::epoll_ctl(found_[i].epoll, EPOLL_CTL_ADD, fd, &event);  // EEXIST: a duplicate of one seen before
  }
}

}  // namespace nvsock::preload
