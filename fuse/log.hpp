// Where csdfs logs: standard error in the foreground, syslog as a daemon; neither ever makes it wait.
// Threads: event loop only; what else runs in csdfs has nothing to say.
#pragma once

#include <spdlog/logger.h>

#include <memory>

#include "libnvsock/base/log.hpp"

namespace csdfs {

// In front of a daemon::LogQueue, which goes with the last owner of the logger.
std::shared_ptr<spdlog::logger> make_log(bool foreground, bool verbose);
nvsock::Log library_log(spdlog::logger& to);  // which outlives it

}  // namespace csdfs
