// The end of csdfs: what it took from programs goes to the services before it exits, and what does not is
// told.
//
// Once the mount is gone and every file let go, the devices go on with what connections that were closed in
// good order have left, within the mount's drain_timeout. What is left then is given up: its services see a
// reset, the log has one line, and the exit status is 1. Threads: event loop only. Nothing blocks.
#pragma once

#include <spdlog/logger.h>

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>

#include "fuse/filesystem.hpp"

namespace csdfs {

class Shutdown {
 public:
  // All outlive it.
  Shutdown(asio::io_context& loop, Filesystem& filesystem, spdlog::logger& log,
           std::chrono::seconds drain_timeout)
      : loop_(loop), filesystem_(filesystem), log_(log), patience_(drain_timeout), timer_(loop) {}

  // Stops the loop when everything is done. REQUIRES: the filesystem has ended. Once.
  void start();
  bool started() const { return started_; }
  // Stops the loop now.
  void end();

  bool lost() const { return lost_; }  // bytes that were accepted

 private:
  using Time = std::chrono::steady_clock::time_point;
  void step();
  void give_up(const nvsock::Undelivered& left);

  asio::io_context& loop_;
  Filesystem& filesystem_;
  spdlog::logger& log_;
  const std::chrono::seconds patience_;
  asio::steady_timer timer_;
  std::chrono::milliseconds next_step_{1};
  Time deadline_;       // for what is undelivered
  Time last_progress_;  // something was undelivered, or not with the drive
  bool started_ = false;
  bool lost_ = false;
};

}  // namespace csdfs
