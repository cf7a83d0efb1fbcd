// One drive as the mount shows it: the device, what is published in it, what leads into it, and everything
// that is open or being opened in its directory. It knows nothing of names, nor of other drives. What all
// drives of a mount share is Mount.
//
// Threads: event loop only. Nothing blocks.
#pragma once

#include <spdlog/logger.h>

#include <asio/io_context.hpp>
#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "daemon/limits.hpp"
#include "fuse/access.hpp"
#include "fuse/forwarder.hpp"
#include "fuse/open_file.hpp"
#include "fuse/parked.hpp"
#include "fuse/publisher.hpp"
#include "libnvsock/device.hpp"

namespace csdfs {

class Connection;
class StatusOpen;

struct Mount {
  asio::io_context& loop;
  spdlog::logger& log;
  Access access{loop, log};
  nvsock::daemon::LimitWatch limits{};
  ParkedPool parked{};
  OpenFiles files{};
};

class MountedDrive {
 public:
  // Both outlive it.
  MountedDrive(Mount& mount, nvsock::Device& device);
  ~MountedDrive();

  Mount& mount() { return mount_; }
  const Mount& mount() const { return mount_; }
  nvsock::Device& device() { return device_; }
  const nvsock::Device& device() const { return device_; }
  Publisher& publisher() { return publisher_; }
  const Publisher& publisher() const { return publisher_; }
  Forwarder& forwarder() { return forwarder_; }
  const Forwarder& forwarder() const { return forwarder_; }

  // Every connection that lives, whoever owns it; each says so itself.
  void add(Connection& connection) { connections_.insert(&connection); }
  void remove(Connection& connection) { connections_.erase(&connection); }
  const std::unordered_set<Connection*>& connections() const { return connections_; }

  // Opens that wait for the drive's answer belong to the drive until they are answered. REQUIRES of take():
  // held.
  void hold(std::unique_ptr<Connection> opening);
  std::unique_ptr<Connection> take(Connection& opening);
  void hold(std::shared_ptr<StatusOpen> opening);
  std::shared_ptr<StatusOpen> take(StatusOpen& opening);

  // The mount ends: nothing is published or forwarded any more, and opens that wait fail with ENODEV.
  void end();

 private:
  Mount& mount_;
  nvsock::Device& device_;
  Publisher publisher_;
  Forwarder forwarder_;
  std::unordered_set<Connection*> connections_;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> opening_;
  std::unordered_map<StatusOpen*, std::shared_ptr<StatusOpen>> status_opening_;
};

}  // namespace csdfs
