#include "fuse/node_table.hpp"

#include <cerrno>
#include <utility>

#include "libnvsock/mount_abi.h"

namespace csdfs {
namespace {

using nvsock::Endpoint;
using nvsock::Error;
using nvsock::Result;
using nvsock::SocketType;

// FNV-1a, 64 bits: a stable st_ino for a place in a drive, apart from the fixed ones.
ino_t number_of(unsigned drive, const Endpoint& place) {
  constexpr uint64_t prime = 0x100000001b3;
  uint64_t hash = 0xcbf29ce484222325 + drive * prime;
  for (const char c : place.text()) hash = (hash ^ static_cast<uint8_t>(c)) * prime;
  hash |= NVSOCK_INO_CONNECTION;
  return place.type == SocketType::datagram ? hash | NVSOCK_INO_DATAGRAM : hash & ~NVSOCK_INO_DATAGRAM;
}

}  // namespace

fuse_ino_t NodeTable::add_drive() {
  const auto drive = static_cast<unsigned>(first_ids_.size());
  const fuse_ino_t first = std::exchange(next_id_, next_id_ + fixed_ids);
  first_ids_.push_back(first);
  const fuse_ino_t directory = first + FUSE_ROOT_ID;
  nodes_[directory] = {.kind = Node::Kind::drive, .drive = drive, .endpoint = {}, .number = directory};
  for (const FixedFile& file : files_) {
    Node node{.kind = file.is_directory() ? Node::Kind::protocol : Node::Kind::file,
              .drive = drive,
              .fixed = &file,
              .endpoint = {},
              .number = first + file.id};
    node.endpoint.type = file.type;
    nodes_[first + file.id] = std::move(node);
  }
  return directory;
}

std::vector<std::pair<const char*, const Node*>> NodeTable::entries(const Node& directory) const {
  std::vector<std::pair<const char*, const Node*>> entries;
  if (directory.kind != Node::Kind::drive) return entries;  // which hosts and ports there are nobody knows
  for (const FixedFile& file : files_) {
    entries.emplace_back(file.name, find(first_ids_[directory.drive] + file.id));
  }
  return entries;
}

Result<std::pair<fuse_ino_t, const Node*>> NodeTable::look_up(fuse_ino_t parent, std::string_view name) {
  const Node* directory = find(parent);
  if (directory == nullptr) return Error{ENOENT, "unknown directory"};
  if (directory->kind == Node::Kind::drive) {
    for (const FixedFile& file : files_) {
      const fuse_ino_t id = first_ids_[directory->drive] + file.id;
      if (file.name == name) return std::pair<fuse_ino_t, const Node*>{id, find(id)};
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
  node.drive = parent.drive;
  const SocketType type = parent.endpoint.type;
  if (parent.kind == Node::Kind::protocol) {
    Result<Endpoint> host = nvsock::parse_host(name);
    if (host) {
      node.kind = Node::Kind::host;
      node.endpoint = std::move(*host);
      node.endpoint.type = type;
      node.number = number_of(node.drive, node.endpoint);
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
  node.number = number_of(node.drive, node.endpoint);
  return node;
}

const Node* NodeTable::find(fuse_ino_t id) const {
  const auto found = nodes_.find(id);
  return found == nodes_.end() ? nullptr : &found->second;
}

void NodeTable::forget(fuse_ino_t id, uint64_t lookups) {
  const auto found = nodes_.find(id);
  if (found == nodes_.end() || found->second.lookups == 0) return;  // those of rows stay
  if (found->second.lookups <= lookups) {
    nodes_.erase(found);
  } else {
    found->second.lookups -= lookups;
  }
}

}  // namespace csdfs
