// The names of the mount: which node identifier the kernel holds for which place of which drive.
//
// Every lookup of a connection file gets an identifier of its own. The kernel locks a file's inode for the
// whole of a write (Linux 5.10-6.18, FOPEN_DIRECT_IO), so two connections to one address must not share
// one. st_ino is derived from the path instead and stays the same. Connections are never found by node.
//
// The first drive's directory is MOUNT itself. Those of others have identifiers and nodes like it, but no
// name leads to them: a mount that shows several drives needs a directory above them, and nothing else here.
// Threads: event loop only.
#pragma once

#include <fuse_lowlevel.h>

#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fuse/fixed_file.hpp"
#include "libnvsock/base/result.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace csdfs {

struct Node {
  enum class Kind : uint8_t {
    drive,       // MOUNT: the directory of a drive
    protocol,    // MOUNT/tcp and MOUNT/udp: `endpoint` with nothing but the type
    host,        // MOUNT/tcp/HOST, the same in udp: `endpoint` without a port
    connection,  // MOUNT/tcp/HOST:PORT and MOUNT/tcp/HOST/PORT, the same in udp: `endpoint`
    file,        // MOUNT/status and the like: `fixed`
  };

  Kind kind = Kind::drive;
  unsigned drive = 0;                // which of the mount's, counted from 0
  const FixedFile* fixed = nullptr;  // protocols and files: their row
  nvsock::Endpoint endpoint;
  ino_t number = 0;      // st_ino
  uint64_t lookups = 0;  // references the kernel holds; drives, protocols and files do not count

  bool is_directory() const { return kind <= Kind::host; }
};

class NodeTable {
 public:
  // `files` are the rows of every drive; they outlive the table.
  explicit NodeTable(std::span<const FixedFile> files) : files_(files) {}

  // Adds the directory of one more drive, and what is fixed in it; returns the directory's identifier. The
  // first one is FUSE_ROOT_ID. REQUIRES before look_up(): one drive.
  fuse_ino_t add_drive();

  // Parses NAME in the directory PARENT and returns a new reference: {identifier, node}. ENOENT with a
  // sentence if the name is none of ours. Touches nothing but memory.
  nvsock::Result<std::pair<fuse_ino_t, const Node*>> look_up(fuse_ino_t parent, std::string_view name);
  const Node* find(fuse_ino_t id) const;  // null: unknown
  void forget(fuse_ino_t id, uint64_t lookups);

  // What readdir shows of a directory: names that exist without being asked for.
  std::vector<std::pair<const char*, const Node*>> entries(const Node& directory) const;

 private:
  nvsock::Result<Node> parse(const Node& parent, std::string_view name) const;

  const std::span<const FixedFile> files_;
  std::vector<fuse_ino_t> first_ids_;  // of each drive: what its rows' identifiers are added to
  std::unordered_map<fuse_ino_t, Node> nodes_;
  fuse_ino_t next_id_ = 0;
};

}  // namespace csdfs
