// The command line of csdfs, in the manner of sshfs: DEVICE MOUNTPOINT, and -o for everything else.
#pragma once

#include <fuse_lowlevel.h>

#include <string>

#include "libnvsock/result.hpp"

namespace csdfs {

struct Options {
  std::string device;
  std::string mountpoint;  // absolute
  bool foreground = false;
  bool verbose = false;
  bool fuse_debug = false;
  bool help = false;
  bool version = false;
  unsigned connect_timeout = 130;  // seconds
  unsigned drain_timeout = 30;     // seconds
  fuse_args fuse = FUSE_ARGS_INIT(0, nullptr);  // what libfuse and the kernel shall see; freed by main
};

extern const char* const usage_text;

// EINVAL with a sentence.
nvsock::Result<Options> parse_options(int argc, char** argv);

}  // namespace csdfs
