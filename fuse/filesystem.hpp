// The mounted tree: its names, the files open in it, and the drives it shows. Owns everything but the
// kernel's end, the devices and the loop. Threads: event loop only. Nothing blocks.
#pragma once

#include <fuse_lowlevel.h>
#include <spdlog/logger.h>

#include <asio/io_context.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "fuse/mounted_drive.hpp"
#include "fuse/node_table.hpp"
#include "libnvsock/device.hpp"

namespace csdfs {

class Filesystem {
 public:
  Filesystem(asio::io_context& loop, spdlog::logger& log);
  ~Filesystem();

  static const fuse_lowlevel_ops& operations();  // user data: Filesystem*

  // Shows a drive; the first one's directory is the mount's root. `device` outlives the mount. REQUIRES:
  // before the kernel mounts.
  MountedDrive& add_drive(nvsock::Device& device);
  MountedDrive& drive_of(const Node& node) { return *drives_[node.drive]; }

  NodeTable& nodes() { return nodes_; }
  Mount& mount() { return mount_; }
  Access& access() { return mount_.access; }

  // The buffer the request at hand arrived in, so that a write can keep its payload without a copy.
  void set_arrival(const nvsock::BufferRef* buffer) { arrival_ = buffer; }
  nvsock::BufferRef arrival() const { return arrival_ != nullptr ? *arrival_ : nvsock::BufferRef(); }

  std::function<void()> on_mounted;  // called once, when the kernel has accepted the mount

  // The mount ends: every parked request is answered and every connection let go. Accepted bytes are still
  // sent by the devices; `cut`: but programs had those files open, and their services see a reset behind
  // them.
  void end(bool cut);
  // Of all devices, see nvsock::Device.
  bool drained() const;
  bool detached() const;
  bool finished() const;
  nvsock::Undelivered undelivered() const;
  void give_up();

 private:
  Mount mount_;
  NodeTable nodes_;
  std::vector<std::unique_ptr<MountedDrive>> drives_;  // by Node::drive
  const nvsock::BufferRef* arrival_ = nullptr;
};

}  // namespace csdfs
