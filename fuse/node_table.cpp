#include "fuse/node_table.hpp"

#include <cerrno>

#include "libnvsock/mount_abi.h"

namespace csdfs {
namespace {

using nvsock::Endpoint;
using nvsock::Error;
using nvsock::Result;
using nvsock::SocketType;

// FNV-1a, 64 bits: a stable st_ino for a place, apart from the fixed ones.
ino_t number_of(const Endpoint& place) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : place.text()) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  hash |= NVSOCK_INO_CONNECTION;
  return place.type == SocketType::datagram ? hash | NVSOCK_INO_DATAGRAM : hash & ~NVSOCK_INO_DATAGRAM;
}

Node fixed(Node::Kind kind, ino_t number, SocketType type = SocketType::stream) {
  Node node{kind, {}, number, 0};
  node.endpoint.type = type;
  return node;
}

}  // namespace

NodeTable::NodeTable() {
  nodes_.emplace(FUSE_ROOT_ID, fixed(Node::Kind::root, 1));
  nodes_.emplace(fixed_names[0].id, fixed(Node::Kind::protocol, 2));
  nodes_.emplace(fixed_names[1].id, fixed(Node::Kind::status, 3));
  nodes_.emplace(fixed_names[2].id, fixed(Node::Kind::connections, 4));
  nodes_.emplace(fixed_names[3].id, fixed(Node::Kind::published, 7));
  nodes_.emplace(fixed_names[4].id, fixed(Node::Kind::control, 8));
  nodes_.emplace(fixed_names[5].id, fixed(Node::Kind::protocol, 5, SocketType::datagram));
}

Result<std::pair<fuse_ino_t, const Node*>> NodeTable::look_up(fuse_ino_t parent, std::string_view name) {
  const Node* directory = find(parent);
  if (directory == nullptr) return Error{ENOENT, "unknown directory"};
  if (directory->kind == Node::Kind::root) {
    for (const FixedName& entry : fixed_names) {
      if (entry.name == name) return std::pair<fuse_ino_t, const Node*>{entry.id, find(entry.id)};
    }
    return Error{ENOENT, "no such file in the mount"};
  }
  Result<Node> node = parse(*directory, name);
  if (!node) return node.error();
  node->lookups = 1;
  const fuse_ino_t id = next_id_++;
  return std::pair<fuse_ino_t, const Node*>{id, &nodes_.emplace(id, std::move(*node)).first->second};
}

Result<Node> NodeTable::parse(const Node& parent, std::string_view name) const {
  const auto refused = [](const Error& error) { return Error{ENOENT, error.text}; };
  Node node;
  const SocketType type = parent.endpoint.type;
  if (parent.kind == Node::Kind::protocol) {
    Result<Endpoint> host = nvsock::parse_host(name);
    if (host) {
      node.kind = Node::Kind::host;
      node.endpoint = std::move(*host);
      node.endpoint.type = type;
      node.number = number_of(node.endpoint);
      return node;
    }
    Result<Endpoint> endpoint = nvsock::parse_endpoint(name, type);
    if (!endpoint) return refused(name.find(':') == std::string_view::npos ? host.error() : endpoint.error());
    node.endpoint = std::move(*endpoint);
  } else if (parent.kind == Node::Kind::host) {
    const Result<uint16_t> port = nvsock::parse_port(name, type);
    if (!port) return refused(port.error());
    node.endpoint = parent.endpoint;
    node.endpoint.port = *port;
  } else {
    return Error{ENOENT, "not a directory"};
  }
  node.kind = Node::Kind::connection;
  node.number = number_of(node.endpoint);
  return node;
}

const Node* NodeTable::find(fuse_ino_t id) const {
  const auto found = nodes_.find(id);
  return found == nodes_.end() ? nullptr : &found->second;
}

void NodeTable::forget(fuse_ino_t id, uint64_t lookups) {
  const auto found = nodes_.find(id);
  if (found == nodes_.end() || found->second.lookups == 0) return;  // fixed nodes stay
  if (found->second.lookups <= lookups) {
    nodes_.erase(found);
  } else {
    found->second.lookups -= lookups;
  }
}

}  // namespace csdfs
