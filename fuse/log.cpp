#include "fuse/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <syslog.h>

namespace csdfs {

std::shared_ptr<spdlog::logger> make_log(bool foreground, bool verbose) {
  std::shared_ptr<spdlog::sinks::sink> sink;
  if (foreground) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
    sink->set_pattern("csdfs: %l: %v");
  } else {
    sink = std::make_shared<spdlog::sinks::syslog_sink_st>("csdfs", LOG_PID, LOG_DAEMON, false);
  }
  auto log = std::make_shared<spdlog::logger>("csdfs", std::move(sink));
  log->set_level(verbose ? spdlog::level::debug : spdlog::level::info);
  log->flush_on(spdlog::level::debug);
  return log;
}

nvsock::Log library_log(std::shared_ptr<spdlog::logger> log) {
  return [log = std::move(log)](nvsock::LogLevel level, const std::string& text) {
    switch (level) {
      case nvsock::LogLevel::debug:
        return log->debug(text);
      case nvsock::LogLevel::info:
        return log->info(text);
      case nvsock::LogLevel::warning:
        return log->warn(text);
      case nvsock::LogLevel::error:
        return log->error(text);
    }
  };
}

}  // namespace csdfs
