// Names below the mount: lookups and forgets in any order, as a kernel might send them.
//
// Input: steps of one byte that says what, one that says where, one length, and as many bytes of a name.
#include "fuse/node_table.hpp"

#include <map>

#include "tests/fuzz/fuzz.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using nvsock::fuzz::check;
  nvsock::fuzz::Input input(data, size);
  constexpr csdfs::FixedFile rows[] = {
      {"tcp", 2, S_IFDIR | 0755, nullptr, nvsock::SocketType::stream},
      {"status", 3, S_IFREG | 0444, nullptr},
      {"udp", 5, S_IFDIR | 0755, nullptr, nvsock::SocketType::datagram},
  };
  csdfs::NodeTable table(rows);
  table.add_drive();
  std::map<fuse_ino_t, uint64_t> held;  // references a kernel would hold
  while (!input.empty()) {
    const bool forget = input.below(4) == 0;
    const size_t at = input.number<uint8_t>();
    fuse_ino_t where = at < 16 ? at : 16 + at % (held.size() + 2);
    if (forget) {
      const uint64_t count = held.contains(where) ? held[where] : 1;
      table.forget(where, count);
      held.erase(where);
      if (where >= 16) check(table.find(where) == nullptr, "a forgotten node is gone");
      continue;
    }
    const std::string_view name = input.text(input.number<uint8_t>());
    const auto found = table.look_up(where, name);
    if (!found) {
      check(found.error().code == ENOENT, "a name that is none of ours is not there");
      continue;
    }
    check(table.find(found->first) == found->second, "a node is found by its number");
    if (found->first >= 16) ++held[found->first];
    if (found->second->kind == csdfs::Node::Kind::connection) {
      check(found->second->endpoint.port != 0, "a connection has a port");
    }
  }
  for (const auto& [id, count] : held) table.forget(id, count);
  check(table.find(FUSE_ROOT_ID) != nullptr, "the root stays");
  return 0;
}
