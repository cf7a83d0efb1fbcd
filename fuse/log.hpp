// Where csdfs logs: standard error in the foreground, syslog as a daemon.
// Threads: event loop only; what else runs in csdfs has nothing to say. Writing to standard error may block.
#pragma once

#include <spdlog/logger.h>

#include <memory>

#include "libnvsock/base/log.hpp"

namespace csdfs {

std::shared_ptr<spdlog::logger> make_log(bool foreground, bool verbose);
nvsock::Log library_log(std::shared_ptr<spdlog::logger> log);

}  // namespace csdfs
