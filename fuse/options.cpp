#include "fuse/options.hpp"

#include <fuse_opt.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <system_error>

#include "libnvsock/base/number.hpp"
#include "libnvsock/device_uri.hpp"

namespace csdfs {
namespace {

using nvsock::Result;

struct Parsed {
  ~Parsed() {
    for (char* text : {device, mountpoint, connect_timeout, drain_timeout, busy_poll, access, seccomp})
      std::free(text);
  }

  char* device = nullptr;
  char* mountpoint = nullptr;
  int foreground = 0;
  int verbose = 0;
  int fuse_debug = 0;
  int help = 0;
  int version = 0;
  char* connect_timeout = nullptr;
  char* drain_timeout = nullptr;
  char* busy_poll = nullptr;
  char* access = nullptr;
  bool allow_other = false;
  char* seccomp = nullptr;
  bool auto_unmount = false;
  std::vector<Publication> published;
  std::vector<nvsock::ForwardSpec> forwards;
  std::string error;
};

constexpr int key_publish = 1;
constexpr int key_forward = 2;
constexpr int key_allow_other = 3;  // libfuse's too
constexpr int key_auto_unmount = 4;

#define FLAG(text, member) \
  { text, offsetof(Parsed, member), 1 }
#define TEXT(text, member) \
  { text, offsetof(Parsed, member), 0 }

// FUSE_OPT_KEY, whose conversion clang warns of.
#define KEY(text, key) \
  { text, static_cast<unsigned long>(-1U), key }

const fuse_opt specification[] = {
    FLAG("-f", foreground),
    FLAG("-v", verbose),
    FLAG("-d", fuse_debug),
    FLAG("debug", fuse_debug),
    FLAG("-h", help),
    FLAG("--help", help),
    FLAG("-V", version),
    FLAG("--version", version),
    TEXT("connect_timeout=%s", connect_timeout),
    TEXT("drain_timeout=%s", drain_timeout),
    TEXT("busy_poll=%s", busy_poll),
    TEXT("access=%s", access),
    TEXT("seccomp=%s", seccomp),
    KEY("publish=", key_publish),
    KEY("forward=", key_forward),
    KEY("allow_other", key_allow_other),
    KEY("auto_unmount", key_auto_unmount),
    // For mount(8) and its table, not for the file system.
    KEY("auto", FUSE_OPT_KEY_DISCARD),
    KEY("noauto", FUSE_OPT_KEY_DISCARD),
    KEY("user", FUSE_OPT_KEY_DISCARD),
    KEY("nouser", FUSE_OPT_KEY_DISCARD),
    KEY("users", FUSE_OPT_KEY_DISCARD),
    KEY("owner", FUSE_OPT_KEY_DISCARD),
    KEY("group", FUSE_OPT_KEY_DISCARD),
    KEY("defaults", FUSE_OPT_KEY_DISCARD),
    KEY("nofail", FUSE_OPT_KEY_DISCARD),
    KEY("_netdev", FUSE_OPT_KEY_DISCARD),
    FUSE_OPT_END,
};

#undef FLAG
#undef TEXT
#undef KEY

// Keeps what is libfuse's, takes the two names, drops the x- options of systemd and mount(8).
int take(void* data, const char* argument, int key, fuse_args*) {
  auto& parsed = *static_cast<Parsed*>(data);
  constexpr int drop = 0, keep = 1, fail = -1;
  if (key == FUSE_OPT_KEY_NONOPT) {
    if (parsed.device == nullptr) {
      parsed.device = strdup(argument);
    } else if (parsed.mountpoint == nullptr) {
      parsed.mountpoint = strdup(argument);
    } else {
      parsed.error = "unexpected argument \"" + std::string(argument) + "\" after DEVICE and MOUNTPOINT";
      return fail;
    }
    return drop;
  }
  if (key == key_publish) {
    const std::string_view value = std::string_view(argument).substr(std::strlen("publish="));
    const size_t middle = value.find('=');
    Result<Publication> what = parse_publication(
        value.substr(0, middle), middle == std::string_view::npos ? "" : value.substr(middle + 1));
    if (!what) {
      parsed.error = std::string(argument) + ": " + what.error().text;
      return fail;
    }
    parsed.published.push_back(std::move(*what));
    return drop;
  }
  if (key == key_forward) {
    auto specs = nvsock::parse_forward(std::string_view(argument).substr(std::strlen("forward=")));
    if (!specs) {
      parsed.error = std::string(argument) + ": " + specs.error().text;
      return fail;
    }
    std::ranges::move(*specs, std::back_inserter(parsed.forwards));
    return drop;
  }
  if (key == key_allow_other) {
    parsed.allow_other = true;
    return keep;
  }
  if (key == key_auto_unmount) {
    parsed.auto_unmount = true;
    return keep;
  }
  if (std::strncmp(argument, "x-", 2) == 0 || std::strncmp(argument, "comment=", 8) == 0) return drop;
  if (argument[0] == '-' && std::strncmp(argument, "-o", 2) != 0) {
    parsed.error = "unknown option \"" + std::string(argument) + "\"; see csdfs --help";
    return fail;
  }
  return keep;
}

struct Range {
  const char* name;
  unsigned least;
  unsigned most;
  const char* unit;
};
constexpr Range connect_range{"connect_timeout", 1, 86400, "seconds"};
constexpr Range drain_range{"drain_timeout", 1, 86400, "seconds"};
constexpr Range busy_range{"busy_poll", 0, 10000, "microseconds"};

// `text` may be null: not given.
Result<unsigned> parse_in_range(const Range& range, const char* text, unsigned without) {
  if (text == nullptr) return without;
  unsigned value = 0;
  if (!nvsock::parse_number(text, value) || value < range.least || value > range.most) {
    return nvsock::Error{EINVAL, std::string(range.name) + "=" + text + " is out of range (" +
                                     std::to_string(range.least) + "-" + std::to_string(range.most) + " " +
                                     range.unit + ")"};
  }
  return value;
}

// What stands before and behind the devices, of which libnvsock has the table.
constexpr char usage_head[] =
    "Usage: csdfs [options] DEVICE MOUNTPOINT\n"
    "\n"
    "Mounts the network services inside an NVMe computational storage device:\n"
    "opening MOUNTPOINT/tcp/HOST:PORT connects to that port inside the drive.\n"
    "\n";
constexpr char usage_options[] =
    "Options:\n"
    "    -f                     stay in the foreground and log to standard error\n"
    "    -v                     log every connection, and names that were refused\n"
    "    -d                     log every FUSE request (implies -f)\n"
    "    -o connect_timeout=S   give up connecting after S seconds (130)\n"
    "    -o drain_timeout=S     after the last close, try S seconds to send the rest (30)\n"
    "    -o busy_poll=US        look for more work this long before sleeping (50; 0: never)\n"
    "    -o seccomp=WHAT        what a system call that csdfs never makes does: kill, log or none\n"
    "    -o publish=[HOST:]PORT=ADDRESS:PORT\n"
    "                           let connections to that port inside the drive reach a TCP\n"
    "                           service of this host; may be given several times\n"
    "    -o forward=[BIND:]PORT:[HOST:]PORT\n"
    "                           let connections to that port of this host (BIND: its loopback)\n"
    "                           reach HOST:PORT inside the drive (HOST: 127.0.0.1); may be\n"
    "                           given several times\n"
    "    -o access=FILE         with allow_other: the rules of what other users may do (nothing)\n"
    "    -o allow_other,...     mount options of FUSE, see mount.fuse3(8)\n"
    "    -h, --help             print this\n"
    "    -V, --version          print the version\n"
    "\n"
    "Unmount with: umount MOUNTPOINT, or SIGTERM to csdfs.\n";

}  // namespace

std::string usage() {
  return std::string(usage_head) + "DEVICE is one of these; options follow a ?, joined by &\n" +
         nvsock::devices_help() + "\n" + usage_options;
}

nvsock::Result<Options> parse_options(int argc, char** argv) {
  Parsed parsed;
  Options options;
  fuse_args args = FUSE_ARGS_INIT(argc, argv);
  const bool understood = fuse_opt_parse(&args, &parsed, specification, take) == 0;
  if (understood) options.fuse.assign(args.argv, args.argv + args.argc);
  fuse_opt_free_args(&args);
  if (!understood) {
    return nvsock::Error{EINVAL, parsed.error.empty() ? "bad options; see csdfs --help" : parsed.error};
  }
  options.help = parsed.help != 0;
  options.version = parsed.version != 0;
  if (options.help || options.version) return options;

  const struct {
    const Range& range;
    const char* text;
    unsigned& option;
  } numbers[] = {{connect_range, parsed.connect_timeout, options.connect_timeout},
                 {drain_range, parsed.drain_timeout, options.drain_timeout},
                 {busy_range, parsed.busy_poll, options.busy_poll}};
  for (const auto& [range, text, option] : numbers) {
    const Result<unsigned> value = parse_in_range(range, text, option);
    if (!value) return value.error();
    option = *value;
  }
  if (parsed.seccomp != nullptr) {
    options.seccomp = nvsock::daemon::parse_on_forbidden(parsed.seccomp);
    if (!options.seccomp)
      return nvsock::Error{EINVAL, std::string("seccomp=") + parsed.seccomp + " is not kill, log or none"};
  }
  options.auto_unmount = parsed.auto_unmount;
  if (parsed.device == nullptr || parsed.mountpoint == nullptr) {
    return nvsock::Error{EINVAL, "DEVICE and MOUNTPOINT are needed, such as: csdfs emu: /mnt/csd"};
  }
  if (parsed.access != nullptr) {
    if (!parsed.allow_other) {
      return nvsock::Error{EINVAL, "access=" + std::string(parsed.access) +
                                       " is for other users, whom only -o allow_other lets in; give both"};
    }
    std::error_code failed;
    options.access = std::filesystem::absolute(parsed.access, failed).string();
    if (failed || parsed.access[0] == '\0') {
      return nvsock::Error{EINVAL, "access=" + std::string(parsed.access) + " is not the name of a file"};
    }
  }
  options.allow_other = parsed.allow_other;
  options.device = parsed.device;
  options.published = std::move(parsed.published);
  options.forwards = std::move(parsed.forwards);
  options.mountpoint = parsed.mountpoint;
  options.foreground = parsed.foreground != 0 || parsed.fuse_debug != 0;
  options.verbose = parsed.verbose != 0;
  options.fuse.push_back("-ofsname=csdfs,subtype=csdfs");
  if (parsed.fuse_debug != 0) options.fuse.push_back("-odebug");
  return options;
}

}  // namespace csdfs
