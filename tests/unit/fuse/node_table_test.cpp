// Names of the mount: what resolves, which numbers it gets, and how long the table remembers.
#include "fuse/node_table.hpp"

#include <set>

#include "libnvsock/mount_abi.h"
#include "tests/unit/support.hpp"

namespace csdfs {
namespace {

using nvsock::test::expect_sentence;

constexpr fuse_ino_t tcp = 2;
constexpr fuse_ino_t udp = 5;

constexpr FixedFile rows[] = {{"tcp", tcp, S_IFDIR | 0755, nullptr, nvsock::SocketType::stream},
                              {"status", 3, S_IFREG | 0444, nullptr},
                              {"ctl", 4, S_IFREG | 0600, nullptr},
                              {"udp", udp, S_IFDIR | 0755, nullptr, nvsock::SocketType::datagram}};

// That names and numbers are one's own is checked where the rows are.
TEST(FixedFiles, files_have_an_opener_and_directories_none) {
  for (const FixedFile& row : fixed_files()) {
    EXPECT_EQ(row.open == nullptr, row.is_directory()) << row.name;
    EXPECT_NE(S_ISREG(row.mode), row.is_directory()) << row.name;
  }
}

class NodeTableTest : public ::testing::Test {
 protected:
  const Node* look_up(fuse_ino_t parent, std::string_view name) {
    auto found = table.look_up(parent, name);
    if (!found) return nullptr;
    id = found->first;
    EXPECT_EQ(table.find(id), found->second);
    return found->second;
  }

  NodeTableTest() { table.add_drive(); }

  NodeTable table{rows};
  fuse_ino_t id = 0;  // of what look_up() found last
};

TEST_F(NodeTableTest, root_holds_the_fixed_names_and_nothing_else) {
  ASSERT_NE(table.find(FUSE_ROOT_ID), nullptr);
  EXPECT_EQ(table.find(FUSE_ROOT_ID)->kind, Node::Kind::drive);
  std::set<ino_t> numbers{table.find(FUSE_ROOT_ID)->number};
  for (const FixedFile& entry : rows) {
    const Node* node = look_up(FUSE_ROOT_ID, entry.name);
    ASSERT_NE(node, nullptr) << entry.name;
    EXPECT_EQ(id, entry.id);
    EXPECT_TRUE(numbers.insert(node->number).second) << entry.name << " shares its st_ino";
    EXPECT_EQ(node->is_directory(), entry.is_directory());
    EXPECT_EQ(node->fixed, &entry);
  }
  for (const char* name : {"sctp", "TCP", "tcp ", "", "127.0.0.1:22"}) {
    const auto found = table.look_up(FUSE_ROOT_ID, name);
    ASSERT_FALSE(found) << name;
    EXPECT_EQ(found.error().code, ENOENT) << name;
  }
}

TEST_F(NodeTableTest, a_drives_directory_lists_its_rows_and_others_list_nothing) {
  std::vector<std::string> names;
  for (const auto& [name, node] : table.entries(*table.find(FUSE_ROOT_ID))) {
    names.push_back(name);
    EXPECT_EQ(node, look_up(FUSE_ROOT_ID, name));
  }
  EXPECT_EQ(names, (std::vector<std::string>{"tcp", "status", "ctl", "udp"}));
  EXPECT_TRUE(table.entries(*table.find(tcp)).empty());
}

TEST_F(NodeTableTest, what_lies_in_a_drives_directory_belongs_to_that_drive) {
  const fuse_ino_t second = table.add_drive();
  EXPECT_EQ(table.find(FUSE_ROOT_ID)->drive, 0u);
  ASSERT_NE(table.find(second), nullptr);
  EXPECT_EQ(table.find(second)->drive, 1u);

  std::set<fuse_ino_t> ids;
  std::set<ino_t> numbers;
  for (const fuse_ino_t directory : {fuse_ino_t{FUSE_ROOT_ID}, second}) {
    const unsigned drive = directory == second ? 1 : 0;
    for (const FixedFile& entry : rows) {
      const Node* node = look_up(directory, entry.name);
      ASSERT_NE(node, nullptr);
      EXPECT_EQ(node->drive, drive) << entry.name;
      EXPECT_TRUE(ids.insert(id).second);
      EXPECT_TRUE(numbers.insert(node->number).second);
    }
    ASSERT_NE(look_up(directory, "tcp"), nullptr);
    ASSERT_NE(look_up(id, "127.0.0.1"), nullptr);
    const Node* connection = look_up(id, "22");
    ASSERT_NE(connection, nullptr);
    EXPECT_EQ(connection->drive, drive);
    EXPECT_TRUE(ids.insert(id).second);
    EXPECT_TRUE(numbers.insert(connection->number).second) << "one st_ino for two places";
  }
}

TEST_F(NodeTableTest, host_and_port_name_a_connection) {
  const Node* node = look_up(tcp, "127.0.0.1:22");
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(node->kind, Node::Kind::connection);
  EXPECT_EQ(node->endpoint.text(), "127.0.0.1:22");
  EXPECT_FALSE(node->is_directory());
}

TEST_F(NodeTableTest, udp_is_a_place_of_its_own) {
  const Node* flow = look_up(udp, "127.0.0.1:domain");
  ASSERT_NE(flow, nullptr);
  EXPECT_EQ(flow->kind, Node::Kind::connection);
  EXPECT_EQ(flow->endpoint.path(), "udp/127.0.0.1:53");
  EXPECT_EQ(flow->number & (NVSOCK_INO_CONNECTION | NVSOCK_INO_DATAGRAM),
            NVSOCK_INO_CONNECTION | NVSOCK_INO_DATAGRAM);
  const ino_t number = flow->number;
  ASSERT_NE(look_up(udp, "127.0.0.1"), nullptr);
  const Node* in_host = look_up(id, "53");
  ASSERT_NE(in_host, nullptr);
  EXPECT_EQ(in_host->endpoint.type, nvsock::SocketType::datagram);
  EXPECT_EQ(in_host->number, number);
  EXPECT_EQ(look_up(tcp, "127.0.0.1:53")->number & NVSOCK_INO_DATAGRAM, 0u);
}

TEST_F(NodeTableTest, a_host_is_a_directory_of_ports) {
  const Node* host = look_up(tcp, "Db.Local");
  ASSERT_NE(host, nullptr);
  EXPECT_EQ(host->kind, Node::Kind::host);
  EXPECT_TRUE(host->is_directory());
  const Node* node = look_up(id, "ssh");
  ASSERT_NE(node, nullptr);
  EXPECT_EQ(node->kind, Node::Kind::connection);
  EXPECT_EQ(node->endpoint.text(), "db.local:22");
}

TEST_F(NodeTableTest, an_ipv6_host_needs_no_brackets_as_a_directory) {
  for (const char* name : {"::1", "[::1]"}) {
    const Node* host = look_up(tcp, name);
    ASSERT_NE(host, nullptr) << name;
    EXPECT_EQ(host->kind, Node::Kind::host);
    EXPECT_EQ(look_up(id, "80")->endpoint.text(), "[::1]:80");
  }
}

TEST_F(NodeTableTest, st_ino_depends_on_the_place_only) {
  const ino_t number = look_up(tcp, "[::1]:80")->number;
  EXPECT_EQ(look_up(tcp, "[0::1]:http")->number, number);
  ASSERT_NE(look_up(tcp, "::1"), nullptr);
  EXPECT_EQ(look_up(id, "80")->number, number);
  EXPECT_NE(look_up(tcp, "[::1]:81")->number, number);
  EXPECT_NE(look_up(tcp, "[::2]:80")->number, number);
  EXPECT_NE(look_up(tcp, "::1")->number, number);
}

TEST_F(NodeTableTest, every_lookup_of_a_connection_gets_an_identifier_of_its_own) {
  std::set<fuse_ino_t> ids{FUSE_ROOT_ID, 2, 3, 4};
  for (int i = 0; i < 3; ++i) {
    ASSERT_NE(look_up(tcp, "127.0.0.1:22"), nullptr);
    EXPECT_TRUE(ids.insert(id).second);
  }
}

TEST_F(NodeTableTest, a_node_is_forgotten_with_its_last_reference) {
  ASSERT_NE(look_up(tcp, "127.0.0.1:22"), nullptr);
  const fuse_ino_t first = id;
  ASSERT_NE(look_up(tcp, "127.0.0.1:22"), nullptr);
  table.forget(first, 1);
  EXPECT_EQ(table.find(first), nullptr);
  EXPECT_NE(table.find(id), nullptr) << "another lookup of the same name";
  table.forget(first, 1);  // again: nothing happens
}

TEST_F(NodeTableTest, forgetting_less_than_all_references_keeps_the_node) {
  ASSERT_NE(look_up(tcp, "127.0.0.1:22"), nullptr);
  table.forget(id, 0);
  EXPECT_NE(table.find(id), nullptr);
}

TEST_F(NodeTableTest, fixed_nodes_are_never_forgotten) {
  for (const fuse_ino_t fixed : {fuse_ino_t{FUSE_ROOT_ID}, tcp, fuse_ino_t{3}, fuse_ino_t{4}}) {
    table.forget(fixed, UINT64_MAX);
    EXPECT_NE(table.find(fixed), nullptr);
  }
}

TEST_F(NodeTableTest, malformed_names_do_not_exist_and_are_named) {
  for (const auto& [name, named] : {std::pair{"127.1", "127.1"},
                                    {"256.0.0.1:22", "256.0.0.1"},
                                    {"a b", "a b"},
                                    {"127.0.0.1:70000", "127.0.0.1:70000"},
                                    {"name:nosuch", "nosuch"},
                                    {"1::2::3:22", "1::2::3:22"},
                                    {".hidden", ".hidden"},
                                    {"", "empty"}}) {
    const auto found = table.look_up(tcp, name);
    expect_sentence(found, named);
    EXPECT_EQ(found.error().code, ENOENT) << name;
  }
  ASSERT_NE(look_up(tcp, "127.0.0.1"), nullptr);
  for (const char* name : {"0", "65536", "nosuch", "22:22"}) {
    const auto found = table.look_up(id, name);
    expect_sentence(found, name);
    EXPECT_EQ(found.error().code, ENOENT) << name;
  }
}

TEST_F(NodeTableTest, only_directories_have_names_in_them) {
  ASSERT_NE(look_up(tcp, "127.0.0.1:22"), nullptr);
  for (const fuse_ino_t parent : {id, fuse_ino_t{3}, fuse_ino_t{4}, fuse_ino_t{999}}) {
    const auto found = table.look_up(parent, "22");
    ASSERT_FALSE(found) << parent;
    EXPECT_EQ(found.error().code, ENOENT) << parent;
  }
}

TEST_F(NodeTableTest, references_to_nodes_survive_many_lookups) {
  const Node* first = look_up(tcp, "127.0.0.1:22");
  const fuse_ino_t held = id;
  for (int i = 0; i < 10000; ++i) ASSERT_NE(look_up(tcp, "127.0.0.1:23"), nullptr);
  EXPECT_EQ(table.find(held), first);
  EXPECT_EQ(first->endpoint.port, 22);
}

}  // namespace
}  // namespace csdfs
