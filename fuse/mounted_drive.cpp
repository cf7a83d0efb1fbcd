#include "fuse/mounted_drive.hpp"

#include <utility>

#include "fuse/connection.hpp"
#include "fuse/status_open.hpp"

namespace csdfs {

MountedDrive::MountedDrive(Mount& mount, nvsock::Device& device)
    : mount_(mount),
      device_(device),
      publisher_(mount.loop, device, mount.log),
      forwarder_(mount.loop, device, mount.log) {}

MountedDrive::~MountedDrive() = default;

void MountedDrive::hold(std::unique_ptr<Connection> opening) {
  opening_.emplace(opening.get(), std::move(opening));
}

std::unique_ptr<Connection> MountedDrive::take(Connection& opening) {
  return std::move(opening_.extract(&opening).mapped());
}

void MountedDrive::hold(std::shared_ptr<StatusOpen> opening) {
  status_opening_.emplace(opening.get(), std::move(opening));
}

std::shared_ptr<StatusOpen> MountedDrive::take(StatusOpen& opening) {
  return std::move(status_opening_.extract(&opening).mapped());
}

void MountedDrive::end() {
  publisher_.end();
  forwarder_.end();
  while (!opening_.empty()) opening_.begin()->second->give_up_open();
  while (!status_opening_.empty()) status_opening_.begin()->second->mount_ends();
}

}  // namespace csdfs
