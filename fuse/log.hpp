// Where csdfs logs: standard error in the foreground, syslog as a daemon.
#pragma once

#include <spdlog/logger.h>

#include <memory>

#include "libnvsock/base/log.hpp"

namespace csdfs {

std::shared_ptr<spdlog::logger> make_log(bool foreground, bool verbose);
nvsock::Log library_log(std::shared_ptr<spdlog::logger> log);

}  // namespace csdfs
