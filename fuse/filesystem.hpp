// The mounted tree: names, open files and the device behind them. Owns everything but the kernel's end.
// Threads: event loop only.
#pragma once

#include <spdlog/logger.h>

#include <asio/io_context.hpp>
#include <functional>
#include <list>
#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "fuse/connection.hpp"
#include "fuse/node_table.hpp"
#include "fuse/publisher.hpp"
#include "fuse/status_open.hpp"
#include "libnvsock/device.hpp"

namespace csdfs {

class Filesystem {
 public:
  Filesystem(asio::io_context& loop, nvsock::Device& device, spdlog::logger& log);
  ~Filesystem();

  static const fuse_lowlevel_ops& operations();  // user data: Filesystem*

  asio::io_context& loop() { return loop_; }
  nvsock::Device& device() { return device_; }
  const nvsock::Device& device() const { return device_; }
  spdlog::logger& log() { return log_; }
  NodeTable& nodes() { return nodes_; }
  Publisher& publisher() { return publisher_; }
  const Publisher& publisher() const { return publisher_; }
  ParkedPool& parked_pool() { return parked_pool_; }
  OpenFiles& files() { return files_; }

  void add(Connection& connection) { connections_.insert(&connection); }
  void remove(Connection& connection) { connections_.erase(&connection); }
  // A connection whose open waits for the drive belongs to the file system until it is answered.
  void hold(std::unique_ptr<Connection> opening);
  std::unique_ptr<Connection> take(Connection& opening);
  void add(std::shared_ptr<StatusOpen> open) { status_opens_.insert(std::move(open)); }
  void remove(const std::shared_ptr<StatusOpen>& open) { status_opens_.erase(open); }
  const std::unordered_set<Connection*>& connections() const { return connections_; }

  // The buffer the request at hand arrived in, so that a write can keep its payload without a copy.
  void set_arrival(const nvsock::BufferRef* buffer) { arrival_ = buffer; }
  nvsock::BufferRef arrival() const { return arrival_ != nullptr ? *arrival_ : nvsock::BufferRef(); }

  std::function<void()> on_mounted;  // called once, when the kernel has accepted the mount

  // The mount ends: every parked request is answered and every connection let go. Accepted bytes are still
  // sent by the device.
  void end();

 private:
  asio::io_context& loop_;
  nvsock::Device& device_;
  spdlog::logger& log_;
  Publisher publisher_;
  NodeTable nodes_;
  ParkedPool parked_pool_;
  OpenFiles files_;
  std::unordered_set<Connection*> connections_;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> opening_;
  std::unordered_set<std::shared_ptr<StatusOpen>> status_opens_;
  const nvsock::BufferRef* arrival_ = nullptr;
};

}  // namespace csdfs
