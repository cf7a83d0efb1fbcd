// The command line of csdfs, in the manner of sshfs: DEVICE MOUNTPOINT, and -o for everything else.
// Threads: the main thread, before there is another.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "daemon/system_calls.hpp"
#include "fuse/publisher.hpp"
#include "libnvsock/base/result.hpp"
#include "libnvsock/forward/forward_spec.hpp"

namespace csdfs {

struct Options {
  std::string device;
  std::string mountpoint;  // absolute
  bool foreground = false;
  bool verbose = false;
  bool help = false;
  bool version = false;
  unsigned connect_timeout = 130;                      // seconds
  unsigned drain_timeout = 30;                         // seconds
  unsigned busy_poll = 50;                             // microseconds
  bool allow_other = false;                            // others than the user may enter the mount
  std::string access;                                  // file of rules, absolute; empty: none
  bool auto_unmount = false;                           // by fusermount3, which waits for the end
  std::optional<nvsock::daemon::OnForbidden> seccomp;  // nothing: as is possible
  std::vector<Publication> published;
  std::vector<nvsock::ForwardSpec> forwards;
  std::vector<std::string> fuse;  // argv of what libfuse and the kernel shall see
};

std::string usage();  // of --help

// EINVAL with a sentence.
nvsock::Result<Options> parse_options(int argc, char** argv);

}  // namespace csdfs
