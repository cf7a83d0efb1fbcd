// Which addresses a list of HOST:PORT allows.
#include "csd/sockets/allow_list.hpp"

#include <gtest/gtest.h>

#include <string>

#include "libnvsock/socket/endpoint.hpp"
#include "tests/unit/support.hpp"

namespace nvsock::csd {
namespace {

SocketAddress address(std::string_view text) {
  SocketAddress result;
  result.size = parse_endpoint(text)->to_sockaddr(result.bytes);
  return result;
}

AllowList list(std::initializer_list<std::string_view> entries) {
  AllowList list(AllowList::Empty::everything);
  for (const auto entry : entries) {
    const auto added = list.add(entry);
    EXPECT_TRUE(added) << added.error().text;
  }
  return list;
}

TEST(AllowList, without_entries_it_allows_everything) {
  EXPECT_TRUE(list({}).allows(address("192.0.2.1:1")));
  EXPECT_TRUE(list({}).allows(address("[2001:db8::1]:1")));
}

TEST(AllowList, without_entries_it_may_allow_nothing) {
  AllowList allowed(AllowList::Empty::nothing);
  EXPECT_FALSE(allowed.allows(address("127.0.0.1:1")));
  EXPECT_TRUE(allowed.add("127.0.0.1:*"));
  EXPECT_TRUE(allowed.allows(address("127.0.0.1:1")));
  EXPECT_FALSE(allowed.allows(address("127.0.0.2:1")));
}

TEST(AllowList, an_entry_allows_its_host_and_port_alone) {
  const AllowList allowed = list({"127.0.0.1:22", "[2001:db8::1]:80"});
  EXPECT_TRUE(allowed.allows(address("127.0.0.1:22")));
  EXPECT_TRUE(allowed.allows(address("[2001:db8::1]:80")));
  EXPECT_FALSE(allowed.allows(address("127.0.0.1:23")));
  EXPECT_FALSE(allowed.allows(address("127.0.0.2:22")));
  EXPECT_FALSE(allowed.allows(address("[2001:db8::2]:80")));
  EXPECT_FALSE(allowed.allows(address("[::1]:22")));
}

TEST(AllowList, a_star_is_any_host_or_port) {
  const AllowList hosts = list({"*:443"});
  EXPECT_TRUE(hosts.allows(address("192.0.2.7:443")));
  EXPECT_TRUE(hosts.allows(address("[2001:db8::7]:443")));
  EXPECT_FALSE(hosts.allows(address("192.0.2.7:80")));
  const AllowList ports = list({"10.0.0.1:*"});
  EXPECT_TRUE(ports.allows(address("10.0.0.1:9")));
  EXPECT_FALSE(ports.allows(address("10.0.0.2:9")));
}

TEST(AllowList, an_ipv4_address_in_ipv6_is_the_same_host) {
  EXPECT_TRUE(list({"127.0.0.1:22"}).allows(address("[::ffff:127.0.0.1]:22")));
  EXPECT_TRUE(list({"[::ffff:127.0.0.1]:22"}).allows(address("127.0.0.1:22")));
  EXPECT_FALSE(list({"127.0.0.1:22"}).allows(address("[::ffff:127.0.0.2]:22")));
}

TEST(AllowList, sentences_name_what_is_wrong) {
  AllowList allowed(AllowList::Empty::nothing);
  for (const char* text : {"127.0.0.1", "db.local:5432", "127.0.0.1:0", "127.0.0.1:", ":22", "[::1:22"}) {
    const auto added = allowed.add(text);
    ASSERT_FALSE(added) << text;
    EXPECT_EQ(added.error().code, EINVAL);
    EXPECT_FALSE(added.error().text.empty());
  }
  test::expect_sentence(allowed.add("db.local:5432"),
                        "\"db.local:5432\": an address is expected, not a name");
}

}  // namespace
}  // namespace nvsock::csd
