// The FUSE operations: names and attributes here, everything about an open file in OpenFile.
#include "fuse/filesystem.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <string>

#include "fuse/connection.hpp"

namespace csdfs {
namespace {

// A file of 0 bytes is read by nobody that asks first (busybox cat, anything that splices).
constexpr off_t told_size = 4096;

Filesystem& filesystem_of(fuse_req_t request) {
  return *static_cast<Filesystem*>(fuse_req_userdata(request));
}
OpenFile& file_of(const fuse_file_info* info) {
  return OpenFiles::of(*info);
}

mode_t mode_of(const Node& node) {
  if (node.fixed != nullptr) return node.fixed->mode;
  return node.is_directory() ? S_IFDIR | 0755 : S_IFREG | 0666;
}

struct stat attributes(const Node& node) {
  static const time_t started = time(nullptr);
  struct stat out {};
  out.st_ino = node.number;
  out.st_uid = getuid();
  out.st_gid = getgid();
  out.st_atime = out.st_mtime = out.st_ctime = started;
  out.st_blksize = static_cast<blksize_t>(max_transfer);
  out.st_mode = mode_of(node);
  if (node.is_directory()) {
    out.st_nlink = 2;
  } else {
    out.st_nlink = 1;
    out.st_size = told_size;
    out.st_blocks = told_size / 512;  // fewer look like a sparse file, whose holes cp(1) wants to seek
  }
  return out;
}

// --- names: string work only, the kernel holds the directory's lock ---

void op_init(void* userdata, fuse_conn_info* connection) {
  connection->max_write = max_transfer;
  connection->max_read = 0;  // as large as max_pages allows
  // Splicing into a pipe and out again costs more than the one copy it saves here.
  connection->want &=
      ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
  auto& filesystem = *static_cast<Filesystem*>(userdata);
  if (filesystem.on_mounted) filesystem.on_mounted();
}

void op_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  Filesystem& filesystem = filesystem_of(request);
  const auto found = filesystem.nodes().look_up(parent, name);
  if (!found) {
    filesystem.mount().log.debug(found.error().text);
    fuse_reply_err(request, found.error().code);
    return;
  }
  fuse_entry_param entry{};  // timeouts 0: every use of a name looks it up again
  entry.ino = found->first;
  entry.attr = attributes(*found->second);
  if (fuse_reply_entry(request, &entry) != 0) filesystem.nodes().forget(entry.ino, 1);
}

void op_forget(fuse_req_t request, fuse_ino_t id, uint64_t lookups) {
  filesystem_of(request).nodes().forget(id, lookups);
  fuse_reply_none(request);
}

void op_getattr(fuse_req_t request, fuse_ino_t id, fuse_file_info*) {
  const Node* node = filesystem_of(request).nodes().find(id);
  if (node == nullptr) return void(fuse_reply_err(request, ENOENT));
  const struct stat attr = attributes(*node);
  fuse_reply_attr(request, &attr, 0);
}

// Truncation (shell redirection) and times (touch, cp -p) mean nothing here and hurt nobody.
void op_setattr(fuse_req_t request, fuse_ino_t id, struct stat*, int to_set, fuse_file_info* info) {
  constexpr int refused = FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID;
  if ((to_set & refused) != 0) return void(fuse_reply_err(request, EPERM));
  op_getattr(request, id, info);
}

// Only a name that look_up refused gets here.
void op_create(fuse_req_t request, fuse_ino_t, const char*, mode_t, fuse_file_info*) {
  fuse_reply_err(request, EACCES);
}

void op_mkdir(fuse_req_t request, fuse_ino_t, const char*, mode_t) {
  fuse_reply_err(request, EACCES);
}
void op_mknod(fuse_req_t request, fuse_ino_t, const char*, mode_t, dev_t) {
  fuse_reply_err(request, EACCES);
}
void op_unlink(fuse_req_t request, fuse_ino_t, const char*) {
  fuse_reply_err(request, EPERM);
}

void op_readdir(fuse_req_t request, fuse_ino_t id, size_t size, off_t offset, fuse_file_info*) {
  Filesystem& filesystem = filesystem_of(request);
  const Node* self = filesystem.nodes().find(id);
  if (self == nullptr) return void(fuse_reply_err(request, ENOENT));
  auto entries = filesystem.nodes().entries(*self);
  entries.insert(entries.begin(), {{".", self}, {"..", filesystem.nodes().find(FUSE_ROOT_ID)}});
  char page[1024];
  size_t used = 0;
  for (auto i = static_cast<size_t>(offset); i < entries.size(); ++i) {
    const struct stat attr = attributes(*entries[i].second);
    const size_t limit = std::min(size, sizeof page);
    const size_t needed = fuse_add_direntry(request, page + used, limit - used, entries[i].first, &attr,
                                            static_cast<off_t>(i + 1));
    if (needed > limit - used) break;
    used += needed;
  }
  fuse_reply_buf(request, page, used);
}

// --- open files ---

void op_open(fuse_req_t request, fuse_ino_t id, fuse_file_info* info) {
  Filesystem& filesystem = filesystem_of(request);
  const Node* node = filesystem.nodes().find(id);
  if (node == nullptr) return void(fuse_reply_err(request, ENOENT));
  MountedDrive& drive = filesystem.drive_of(*node);
  if (node->kind == Node::Kind::connection) return Connection::open(drive, request, node->endpoint, *info);
  if (node->kind != Node::Kind::file) return void(fuse_reply_err(request, EISDIR));
  const bool writes = (info->flags & O_ACCMODE) != O_RDONLY;
  if (writes && (node->fixed->mode & 0222) == 0) return void(fuse_reply_err(request, EACCES));
  node->fixed->open(drive, request, *info);
}

void op_read(fuse_req_t request, fuse_ino_t, size_t size, off_t offset, fuse_file_info* info) {
  file_of(info).read(request, size, offset, *info);
}

void op_write(fuse_req_t request, fuse_ino_t, const char* data, size_t size, off_t, fuse_file_info* info) {
  file_of(info).write(request,
                      {.buffer = filesystem_of(request).arrival(),
                       .data = reinterpret_cast<const uint8_t*>(data),
                       .size = static_cast<uint32_t>(size)},
                      *info);
}

void op_poll(fuse_req_t request, fuse_ino_t, fuse_file_info* info, fuse_pollhandle* handle) {
  file_of(info).poll(request, handle);
}

void op_ioctl(fuse_req_t request, fuse_ino_t id, unsigned command, void*, fuse_file_info* info, unsigned,
              const void* in, size_t in_size, size_t out_size) {
  const Node* node = filesystem_of(request).nodes().find(id);
  if (node == nullptr || node->is_directory()) return void(fuse_reply_err(request, ENOTTY));
  file_of(info).ioctl(request, command, in, in_size, out_size);
}

void op_fsync(fuse_req_t request, fuse_ino_t, int, fuse_file_info* info) {
  file_of(info).fsync(request);
}

void op_release(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  filesystem_of(request).mount().files.release(*info);
  fuse_reply_err(request, 0);
}

}  // namespace

Filesystem::Filesystem(asio::io_context& loop, spdlog::logger& log)
    : mount_{.loop = loop, .log = log}, nodes_(fixed_files()) {}

Filesystem::~Filesystem() {
  for (const auto& drive : drives_) drive->end();
  mount_.files.release_all(true);
}

MountedDrive& Filesystem::add_drive(nvsock::Device& device) {
  nodes_.add_drive();
  return *drives_.emplace_back(std::make_unique<MountedDrive>(mount_, device));
}

void Filesystem::end(bool cut) {
  for (const auto& drive : drives_) drive->end();
  mount_.files.release_all(cut);
  for (const auto& drive : drives_) drive->device().finish();
}

bool Filesystem::drained() const {
  return std::all_of(drives_.begin(), drives_.end(),
                     [](const auto& drive) { return drive->device().drained(); });
}

bool Filesystem::detached() const {
  return std::all_of(drives_.begin(), drives_.end(),
                     [](const auto& drive) { return drive->device().detached(); });
}

bool Filesystem::finished() const {
  return std::all_of(drives_.begin(), drives_.end(),
                     [](const auto& drive) { return drive->device().finished(); });
}

nvsock::Undelivered Filesystem::undelivered() const {
  nvsock::Undelivered left;
  for (const auto& drive : drives_) left += drive->device().undelivered();
  return left;
}

void Filesystem::give_up() {
  for (const auto& drive : drives_) drive->device().give_up();
}

// No FLUSH: without it libfuse answers ENOSYS, once, and the kernel never asks again. It would come with
// every close of every duplicate, and must not end anything. The same for extended attributes and access.
const fuse_lowlevel_ops& Filesystem::operations() {
  static const fuse_lowlevel_ops table = [] {
    fuse_lowlevel_ops ops{};
    ops.init = op_init;
    ops.lookup = op_lookup;
    ops.forget = op_forget;
    ops.getattr = op_getattr;
    ops.setattr = op_setattr;
    ops.create = op_create;
    ops.mkdir = op_mkdir;
    ops.mknod = op_mknod;
    ops.unlink = op_unlink;
    ops.rmdir = op_unlink;
    ops.readdir = op_readdir;
    ops.open = op_open;
    ops.read = op_read;
    ops.write = op_write;
    ops.poll = op_poll;
    ops.ioctl = op_ioctl;
    ops.fsync = op_fsync;
    ops.release = op_release;
    return ops;
  }();
  return table;
}

}  // namespace csdfs
