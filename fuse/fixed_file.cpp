#include "fuse/fixed_file.hpp"

#include <optional>
#include <string_view>
#include <vector>

#include "fuse/control_file.hpp"
#include "fuse/mounted_drive.hpp"
#include "fuse/status_json.hpp"
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

std::vector<ForwardReport> forwards_told(const MountedDrive& drive, const std::optional<uid_t>& user) {
  return user ? std::vector<ForwardReport>() : drive.forwarder().report();  // other users have none
}

void open_status_text(MountedDrive& drive, fuse_req_t request, const fuse_file_info&) {
  open_status(drive, request, [](const StatusReport& report) { return text_of(report); });
}

void open_status_json(MountedDrive& drive, fuse_req_t request, const fuse_file_info&) {
  open_status(drive, request, [&drive, user = told_to(drive, request)](const StatusReport& report) {
    return json_of(report, forwards_told(drive, user), drive.publisher().report(user));
  });
}

void open_connections_json(MountedDrive& drive, fuse_req_t request, const fuse_file_info&) {
  open_text(drive.mount().files, request, json_of(report_connections(drive, told_to(drive, request))));
}

void open_connections(MountedDrive& drive, fuse_req_t request, const fuse_file_info&) {
  open_text(drive.mount().files, request, text_of(report_connections(drive, told_to(drive, request))));
}

void open_published(MountedDrive& drive, fuse_req_t request, const fuse_file_info&) {
  open_text(drive.mount().files, request, text_of(drive.publisher().report(told_to(drive, request))));
}

void open_forwards(MountedDrive& drive, fuse_req_t request, const fuse_file_info&) {
  open_text(drive.mount().files, request, text_of(forwards_told(drive, told_to(drive, request))));
}

constexpr FixedFile rows[] = {
    {"tcp", 2, S_IFDIR | 0755, nullptr, nvsock::SocketType::stream},
    {"status", 3, S_IFREG | 0444, open_status_text},
    {"connections", 4, S_IFREG | 0444, open_connections},
    {"published", 7, S_IFREG | 0444, open_published},
    {"forwards", 9, S_IFREG | 0444, open_forwards},
    {"status.json", 10, S_IFREG | 0444, open_status_json},
    {"connections.json", 11, S_IFREG | 0444, open_connections_json},
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
