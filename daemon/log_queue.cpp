#include "daemon/log_queue.hpp"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace nvsock::daemon {
namespace {

using Clock = std::chrono::steady_clock;

// In UTF-8; the control characters above ASCII (C1) are two bytes, the first of them C2h.
std::string without_control_characters(std::string_view text) {
  std::string out(text.substr(0, max_log_line));
  for (size_t i = 0; i < out.size(); ++i) {
    const auto byte = static_cast<unsigned char>(out[i]);
    const auto before = i == 0 ? 0 : static_cast<unsigned char>(out[i - 1]);
    if (byte < 0x20 || byte == 0x7f || (before == 0xc2 && byte < 0xa0)) out[i] = '?';
  }
  if (text.size() > max_log_line) out += "...";
  return out;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string cause_of(LogLevel level, std::string_view text) {
  std::string cause(1, static_cast<char>('0' + static_cast<int>(level)));
  bool quoted = false;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string_view word = text.substr(at, end - at);
    const bool opened = quoted;
    if (std::ranges::count(word, '"') % 2 != 0) quoted = !quoted;
    const bool name = opened || quoted || word.find('"') != word.npos;
    if (!name && std::ranges::none_of(word, is_digit)) cause.append(1, ' ').append(word);
    at = end + 1;
  }
  return cause;
}

struct Line {
  LogLevel level;
  std::string text;
  uint64_t lost_behind = 0;  // lines that came after this one, and found no room
};

struct Cause {
  Clock::time_point since;  // its interval
  unsigned told = 0;        // in it
  uint64_t more = 0;        // beyond the burst
  LogLevel level = LogLevel::debug;
  std::string last{};  // of those
};

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (errno == EAGAIN) {  // somebody else's descriptor as well, and made non-blocking by them
      pollfd room{.fd = fd, .events = POLLOUT, .revents = 0};
      poll(&room, 1, -1);
    } else if (errno != EINTR) {
      return;  // nobody will ever read it
    }
  }
}

}  // namespace

LogOutput stderr_output(std::string program) {
  return [program = std::move(program)](LogLevel level, const std::string& text) {
    constexpr std::array names{"debug", "info", "warning", "error"};
    write_all(STDERR_FILENO, program + ": " + names[static_cast<size_t>(level)] + ": " + text + '\n');
  };
}

LogOutput syslog_output(const char* program) {
  openlog(program, LOG_PID, LOG_DAEMON);
  return [](LogLevel level, const std::string& text) {
    constexpr std::array priorities{LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERR};
    syslog(priorities[static_cast<size_t>(level)], "%s", text.c_str());
  };
}

struct LogQueue::Shared {
  Shared(LogOutput out, const LogLimits& bounds) : output(std::move(out)), limits(bounds) {}

  void push(LogLevel level, std::string text);
  bool within_limit(LogLevel level, const std::string& text);
  Cause& find(const std::string& name, Clock::time_point now);
  void tell_more(Cause& cause, Clock::time_point now);
  void tell_what_is_due();
  Clock::time_point next_due() const;
  void write_lines();

  const LogOutput output;
  const LogLimits limits;
  std::mutex mutex;  // never held during output()
  std::condition_variable changed;
  std::deque<Line> lines;
  std::map<std::string, Cause> causes;
  bool running = false;  // the thread
  bool closing = false;  // it ends when all is written
};

void LogQueue::Shared::push(LogLevel level, std::string text) {
  if (lines.size() >= limits.lines) {
    ++lines.back().lost_behind;
    return;
  }
  lines.push_back({.level = level, .text = std::move(text)});
}

// The interval of a cause that is silent is over when somebody looks; those make room for others.
Cause& LogQueue::Shared::find(const std::string& name, Clock::time_point now) {
  const auto found = causes.find(name);
  if (found != causes.end()) return found->second;
  if (causes.size() >= limits.max_causes) {
    std::erase_if(causes, [&](const auto& entry) {
      return entry.second.more == 0 && now - entry.second.since >= limits.interval;
    });
  }
  return causes.try_emplace(causes.size() < limits.max_causes ? name : "", Cause{.since = now}).first->second;
}

bool LogQueue::Shared::within_limit(LogLevel level, const std::string& text) {
  if (level == LogLevel::debug) return true;
  const auto now = Clock::now();
  Cause& cause = find(cause_of(level, text), now);
  if (now - cause.since >= limits.interval) tell_more(cause, now);
  if (cause.told < limits.burst) {
    ++cause.told;
    return true;
  }
  cause.level = level;
  cause.last = text;
  if (++cause.more == 1) changed.notify_one();  // it sets the time at which they are told
  return false;
}

// Ends the interval.
void LogQueue::Shared::tell_more(Cause& cause, Clock::time_point now) {
  if (cause.more > 0) {
    push(cause.level, "... and " + std::to_string(cause.more) + " more like it, the last: " + cause.last);
  }
  cause = Cause{.since = now};
}

void LogQueue::Shared::tell_what_is_due() {
  const auto now = Clock::now();
  for (auto& [name, cause] : causes) {
    if (cause.more > 0 && (closing || now - cause.since >= limits.interval)) tell_more(cause, now);
  }
}

Clock::time_point LogQueue::Shared::next_due() const {
  auto due = Clock::time_point::max();
  for (const auto& [name, cause] : causes) {
    if (cause.more > 0) due = std::min(due, cause.since + limits.interval);
  }
  return due;
}

void LogQueue::Shared::write_lines() {
  std::unique_lock lock(mutex);
  for (;;) {
    tell_what_is_due();
    if (!lines.empty()) {
      // What is lost from here on came after all that are still in the queue, and after this one if it was
      // the last.
      const Line line = std::move(lines.front());
      lines.pop_front();
      lock.unlock();
      output(line.level, line.text);
      if (line.lost_behind > 0) {
        output(LogLevel::warning,
               std::to_string(line.lost_behind) + " lines are missing here: nobody read the log");
      }
      lock.lock();
      continue;
    }
    if (closing) break;
    const auto due = next_due();
    if (due == Clock::time_point::max()) {
      changed.wait(lock);
    } else {
      changed.wait_until(lock, due);
    }
  }
  running = false;
  changed.notify_all();
}

LogQueue::LogQueue(LogOutput output, const LogLimits& limits)
    : shared_(std::make_shared<Shared>(std::move(output), limits)) {}

LogQueue::~LogQueue() {
  std::unique_lock lock(shared_->mutex);
  shared_->closing = true;
  shared_->changed.notify_all();
  shared_->changed.wait_for(lock, shared_->limits.patience, [this] { return !shared_->running; });
}

// REQUIRES: the mutex is held.
void LogQueue::start() {
  // Signals are the business of the threads that expect them; but that of a system call which is forbidden is
  // this one's (daemon/system_calls.hpp).
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  sigdelset(&all, SIGSYS);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread([shared = shared_] { shared->write_lines(); }).detach();
    shared_->running = true;
  } catch (const std::system_error&) {
    // The next line tries again.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void LogQueue::add(LogLevel level, std::string_view text) {
  std::string clean = without_control_characters(text);
  const std::lock_guard lock(shared_->mutex);
  if (!shared_->within_limit(level, clean)) return;
  shared_->push(level, std::move(clean));
  shared_->changed.notify_one();
  if (!shared_->running) start();
}

}  // namespace nvsock::daemon
