// What the user chose, read from the environment once: NVSOCK_MOUNT, NVSOCK_ROUTE, NVSOCK_LOG.
//
// A process that gained privileges by exec (AT_SECURE) gets the defaults: its environment is its caller's.
//
// Threads: any, signal handlers too, once the constructor has run.
#pragma once

#include <limits.h>

#include "preload/route.hpp"
#include "preload/text.hpp"

namespace nvsock::preload {

struct Settings {
  Text<PATH_MAX> mount;  // without a trailing slash
  Text<PATH_MAX> log;    // empty: silent; "stderr"; or a file to append to
  Routes routes;
};

// Valid and constant after the first call, which the constructor makes. An earlier call, from another
// library's constructor, does that work itself; no thread exists then.
const Settings& settings();

// The library was named in LD_PRELOAD or /etc/ld.so.preload, so its hooks are meant to act. A program that
// merely links with it for nvsock_connect() keeps its own sockets. False until settings() has been called.
bool preloaded();

}  // namespace nvsock::preload
