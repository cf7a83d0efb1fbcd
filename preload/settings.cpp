#include "preload/settings.hpp"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>

#include <atomic>

#include "preload/descriptor.hpp"
#include "preload/log.hpp"
#include "preload/real.hpp"

namespace nvsock::preload {
namespace {

constexpr const char* kDefaultMount = "/mnt/csd";
constexpr const char* kDefaultRoute = "*";
constexpr const char* kPreloadFile = "/etc/ld.so.preload";
constexpr std::size_t kPreloadFileMax = 4096;  // the file holds a few paths

constinit Settings chosen;
constinit std::atomic<bool> is_preloaded = false;
constinit std::atomic<bool> is_ready = false;

std::string_view variable(const char* name, std::string_view fallback) {
  const char* value = ::secure_getenv(name);
  return value != nullptr && *value != '\0' ? value : fallback;
}

std::string_view file_name(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  if (slash != std::string_view::npos) path.remove_prefix(slash + 1);
  return path;
}

// ld.so takes blanks, colons and (in the file) line ends between the names.
bool lists(std::string_view names, std::string_view file) {
  while (!names.empty()) {
    std::size_t end = names.find_first_of(" :\t\n");
    if (end == std::string_view::npos) end = names.size();
    if (file_name({names.data(), end}) == file) return true;
    names.remove_prefix(end < names.size() ? end + 1 : end);
  }
  return false;
}

// File names are compared, not paths: $LIB, relative paths and symbolic links reach us under the name that
// was written down.
bool named_for_preload() {
  Dl_info self;
  if (::dladdr(&chosen, &self) == 0 || self.dli_fname == nullptr) return false;
  const std::string_view file = file_name(self.dli_fname);
  const char* names = ::getenv("LD_PRELOAD");
  if (names != nullptr && lists(names, file)) return true;

  const Descriptor system_wide(::syscall(SYS_openat, AT_FDCWD, kPreloadFile, O_RDONLY | O_CLOEXEC));
  char text[kPreloadFileMax];
  const long size = ::syscall(SYS_read, system_wide.get(), text, sizeof text);
  return size > 0 && lists({text, static_cast<std::size_t>(size)}, file);
}

void read_environment() {
  std::string_view mount = variable("NVSOCK_MOUNT", kDefaultMount);
  while (mount.size() > 1 && mount.back() == '/') mount.remove_suffix(1);
  chosen.mount << mount;
  chosen.log << variable("NVSOCK_LOG", "");

  const std::string_view malformed = chosen.routes.parse(variable("NVSOCK_ROUTE", kDefaultRoute));
  if (!malformed.empty()) {
    log_line([&](LogText& text) {
      text << "NVSOCK_ROUTE: cannot use rule \"" << malformed
           << "\" (malformed, or one too many); connects that no earlier rule matches fail with ENETUNREACH";
    });
  }
}

[[gnu::constructor]] void setup() {
  if (is_ready.exchange(true)) return;
  const int saved = errno;
  real::resolve_all();
  is_preloaded = named_for_preload();
  read_environment();
  errno = saved;
}

}  // namespace

const Settings& settings() {
  if (!is_ready.load(std::memory_order_relaxed)) setup();
  return chosen;
}

bool preloaded() {
  return is_preloaded.load(std::memory_order_relaxed);
}

}  // namespace nvsock::preload
