// The names of the mount: which node identifier the kernel holds for which place.
//
// Every lookup of a connection file gets an identifier of its own. The kernel locks a file's inode for the
// whole of a write (Linux 5.10-6.18, FOPEN_DIRECT_IO), so two connections to one address must not share
// one. st_ino is derived from the path instead and stays the same. Connections are never found by node.
// Threads: event loop only.
#pragma once

#include <fuse_lowlevel.h>

#include <string_view>
#include <unordered_map>

#include "libnvsock/socket/endpoint.hpp"

namespace csdfs {

struct Node {
  enum class Kind : uint8_t {
    root,         // MOUNT
    protocol,     // MOUNT/tcp and MOUNT/udp: `endpoint` with nothing but the type
    host,         // MOUNT/tcp/HOST, the same in udp: `endpoint` without a port
    connection,   // MOUNT/tcp/HOST:PORT and MOUNT/tcp/HOST/PORT, the same in udp: `endpoint`
    status,       // MOUNT/status
    connections,  // MOUNT/connections
    published,    // MOUNT/published
    control,      // MOUNT/ctl
  };

  Kind kind = Kind::root;
  nvsock::Endpoint endpoint;
  ino_t number = 0;      // st_ino
  uint64_t lookups = 0;  // references the kernel holds; fixed nodes do not count

  bool is_directory() const { return kind <= Kind::host; }
};

struct FixedName {
  std::string_view name;
  fuse_ino_t id;
};
// What readdir of the root lists. Opening any of it by accident connects nowhere.
inline constexpr FixedName fixed_names[] = {{"tcp", 2},       {"status", 3}, {"connections", 4},
                                            {"published", 7}, {"ctl", 8},    {"udp", 5}};

class NodeTable {
 public:
  NodeTable();

  // Parses NAME in the directory PARENT and returns a new reference: {identifier, node}. ENOENT with a
  // sentence if the name is none of ours. Touches nothing but memory.
  nvsock::Result<std::pair<fuse_ino_t, const Node*>> look_up(fuse_ino_t parent, std::string_view name);
  const Node* find(fuse_ino_t id) const;
  void forget(fuse_ino_t id, uint64_t lookups);

 private:
  nvsock::Result<Node> parse(const Node& parent, std::string_view name) const;

  std::unordered_map<fuse_ino_t, Node> nodes_;
  fuse_ino_t next_id_ = 16;  // behind the fixed ones
};

}  // namespace csdfs
