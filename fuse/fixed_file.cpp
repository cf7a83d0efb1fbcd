#include "fuse/fixed_file.hpp"

#include <optional>
#include <string_view>
#include <vector>

#include "fuse/control_file.hpp"
#include "fuse/mounted_drive.hpp"
#include "fuse/status_open.hpp"
#include "fuse/status_text.hpp"
#include "fuse/text_file.hpp"

namespace csdfs {
namespace {

// Whose things are told to the one who asks; none: everybody's.
std::optional<uid_t> told_to(const MountedDrive& drive, fuse_req_t request) {
  const uid_t user = fuse_req_ctx(request)->uid;
  return drive.mount().access.owns_all(user) ? std::nullopt : std::optional(user);
}

void open_connections(MountedDrive& drive, fuse_req_t request, const fuse_file_info&) {
  open_text(drive.mount().files, request, text_of(report_connections(drive, told_to(drive, request))));
}

void open_published(MountedDrive& drive, fuse_req_t request, const fuse_file_info&) {
  open_text(drive.mount().files, request, text_of(drive.publisher().report(told_to(drive, request))));
}

void open_forwards(MountedDrive& drive, fuse_req_t request, const fuse_file_info&) {
  const bool all = !told_to(drive, request);  // other users have none
  open_text(drive.mount().files, request,
            text_of(all ? drive.forwarder().report() : std::vector<ForwardReport>()));
}

constexpr FixedFile rows[] = {
    {"tcp", 2, S_IFDIR | 0755, nullptr, nvsock::SocketType::stream},
    {"status", 3, S_IFREG | 0444, open_status},
    {"connections", 4, S_IFREG | 0444, open_connections},
    {"published", 7, S_IFREG | 0444, open_published},
    {"forwards", 9, S_IFREG | 0444, open_forwards},
    {"ctl", 8, S_IFREG | 0666, open_control},
    {"udp", 5, S_IFDIR | 0755, nullptr, nvsock::SocketType::datagram},
};

constexpr bool rows_are_right() {
  for (const FixedFile& row : rows) {
    if (row.id <= FUSE_ROOT_ID || row.id >= fixed_ids) return false;
    for (const FixedFile& other : rows) {
      if (&other != &row && (other.id == row.id || std::string_view(other.name) == row.name)) return false;
    }
  }
  return true;
}
static_assert(rows_are_right());

}  // namespace

std::span<const FixedFile> fixed_files() {
  return rows;
}

}  // namespace csdfs
