#include "fuse/log.hpp"

#include <spdlog/sinks/sink.h>

#include <string_view>

#include "daemon/log_queue.hpp"

namespace csdfs {
namespace {

nvsock::LogLevel level_of(spdlog::level::level_enum level) {
  if (level <= spdlog::level::debug) return nvsock::LogLevel::debug;
  if (level == spdlog::level::info) return nvsock::LogLevel::info;
  return level == spdlog::level::warn ? nvsock::LogLevel::warning : nvsock::LogLevel::error;
}

// spdlog's own asynchronous logger waits for its reader at the end, and knows no limit for a cause.
class QueueSink : public spdlog::sinks::sink {
 public:
  explicit QueueSink(nvsock::daemon::LogOutput output) : queue_(std::move(output)) {}

  void log(const spdlog::details::log_msg& message) override {
    queue_.add(level_of(message.level), std::string_view(message.payload.data(), message.payload.size()));
  }
  void flush() override {}
  void set_pattern(const std::string&) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter>) override {}

 private:
  nvsock::daemon::LogQueue queue_;
};

}  // namespace

std::shared_ptr<spdlog::logger> make_log(bool foreground, bool verbose) {
  auto output = foreground ? nvsock::daemon::stderr_output("csdfs") : nvsock::daemon::syslog_output("csdfs");
  auto log = std::make_shared<spdlog::logger>("csdfs", std::make_shared<QueueSink>(std::move(output)));
  log->set_level(verbose ? spdlog::level::debug : spdlog::level::info);
  return log;
}

nvsock::Log library_log(spdlog::logger& to) {
  return [log = &to](nvsock::LogLevel level, const std::string& text) {
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
