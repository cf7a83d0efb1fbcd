// NVSOCK_LOG: one line per decision, to stderr or appended to a file. Nothing is ever written otherwise,
// and never to stdout. The file is opened for each line, because a guest keeps no descriptor.
//
// A program of root may be told to log into /tmp, where somebody else can make the file first, or a link to
// one: nothing is written through a symbolic link, nor to what another user owns. Of what kind the user's own
// is (file, terminal, fifo) does not matter.
//
// Threads: any, signal handlers too: lines do not mix. A file that blocks (a fifo) is not waited for. A line
// that cannot be written is lost.
#pragma once

#include "preload/settings.hpp"
#include "preload/text.hpp"

namespace nvsock::preload {

using LogText = Text<512>;  // one write() of less than PIPE_BUF: lines of several processes do not mix

bool logging();
void write_log(LogText& line);  // keeps errno

// `compose` fills in the line; it is not called while nobody listens.
template <typename Compose>
void log_line(Compose compose) {
  if (!logging()) return;
  LogText line;
  compose(line);
  write_log(line);
}

}  // namespace nvsock::preload
