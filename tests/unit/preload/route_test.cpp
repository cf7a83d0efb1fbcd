// NVSOCK_ROUTE: grammar, first match wins, and what a typo does.
#include "preload/route.hpp"

#include <gtest/gtest.h>

#include <string>

namespace nvsock::preload {
namespace {

Destination destination(const char* address, std::uint16_t port) {
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (inet_pton(AF_INET, address, &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    return destination_of(reinterpret_cast<sockaddr*>(&v4), sizeof v4);
  }
  EXPECT_EQ(inet_pton(AF_INET6, address, &v6.sin6_addr), 1) << address;
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  return destination_of(reinterpret_cast<sockaddr*>(&v6), sizeof v6);
}

Verdict decide(std::string_view rules, const char* address, std::uint16_t port, int type = SOCK_STREAM) {
  Routes routes;
  routes.parse(rules);
  return routes.decide(destination(address, port), type);
}

std::string first_malformed(std::string_view rules) {
  Routes routes;
  return std::string(routes.parse(rules));
}

TEST(Route, datagrams_go_where_a_rule_of_their_own_says) {
  EXPECT_EQ(decide("*", "127.0.0.1", 53, SOCK_DGRAM), Verdict::network);
  EXPECT_EQ(decide("tcp/*", "127.0.0.1", 53, SOCK_DGRAM), Verdict::network);
  EXPECT_EQ(decide("tcp/*", "127.0.0.1", 53), Verdict::mount);
  EXPECT_EQ(decide("udp/*", "127.0.0.1", 53), Verdict::network);
  EXPECT_EQ(decide("udp/*", "127.0.0.1", 53, SOCK_DGRAM), Verdict::mount);
  EXPECT_EQ(decide("!udp/*:53,*,udp/*?", "::1", 53, SOCK_DGRAM), Verdict::network);
  EXPECT_EQ(decide("!udp/*:53,*,udp/*?", "::1", 54, SOCK_DGRAM), Verdict::mount_or_network);
  EXPECT_EQ(decide("udp/[::1]/128:53", "::1", 53, SOCK_DGRAM), Verdict::mount);
  EXPECT_EQ(decide("*,sctp/*", "127.0.0.1", 53, SOCK_DGRAM), Verdict::refuse) << "a typo refuses all";
  for (const char* rules : {"udp/", "udp", "UDP/*", "udp/tcp/*", "udp/!*", "tcp/udp/*"}) {
    EXPECT_EQ(first_malformed(rules), rules);
  }
}

TEST(Route, only_rules_that_name_datagrams_cost_them_anything) {
  for (const char* rules : {"", "*", "tcp/*,!*:53"}) {
    Routes routes;
    routes.parse(rules);
    EXPECT_FALSE(routes.names_datagrams()) << rules;
  }
  for (const char* rules : {"*,udp/*:53", "*,oops"}) {
    Routes routes;
    routes.parse(rules);
    EXPECT_TRUE(routes.names_datagrams()) << rules;
  }
}

TEST(Route, star_takes_both_families) {
  EXPECT_EQ(decide("*", "127.0.0.1", 22), Verdict::mount);
  EXPECT_EQ(decide("*", "::1", 22), Verdict::mount);
}

TEST(Route, no_match_is_the_network) {
  EXPECT_EQ(decide("", "127.0.0.1", 22), Verdict::network);
  EXPECT_EQ(decide("10.0.0.1", "10.0.0.2", 22), Verdict::network);
}

TEST(Route, first_match_wins) {
  EXPECT_EQ(decide("!127.0.0.1:53,127.0.0.0/8", "127.0.0.1", 53), Verdict::network);
  EXPECT_EQ(decide("!127.0.0.1:53,127.0.0.0/8", "127.0.0.1", 54), Verdict::mount);
  EXPECT_EQ(decide("127.0.0.0/8,!127.0.0.1:53", "127.0.0.1", 53), Verdict::mount);
}

TEST(Route, question_mark_falls_back) {
  EXPECT_EQ(decide("*?", "127.0.0.1", 22), Verdict::mount_or_network);
  EXPECT_EQ(decide("*:22?", "127.0.0.1", 22), Verdict::mount_or_network);
  EXPECT_EQ(decide("!*?", "127.0.0.1", 22), Verdict::network);
}

TEST(Route, prefixes_compare_bits) {
  EXPECT_EQ(decide("10.32.0.0/11", "10.63.255.255", 1), Verdict::mount);
  EXPECT_EQ(decide("10.32.0.0/11", "10.64.0.0", 1), Verdict::network);
  EXPECT_EQ(decide("10.32.5.5/11", "10.33.0.1", 1), Verdict::mount) << "bits behind the prefix do not count";
  EXPECT_EQ(decide("0.0.0.0/0", "8.8.8.8", 1), Verdict::mount);
  EXPECT_EQ(decide("0.0.0.0/0", "::1", 1), Verdict::network);
  EXPECT_EQ(decide("1.2.3.4/32", "1.2.3.5", 1), Verdict::network);
  EXPECT_EQ(decide("[2001:db8::]/33", "2001:db8:7fff::1", 1), Verdict::mount);
  EXPECT_EQ(decide("[2001:db8::]/33", "2001:db8:8000::1", 1), Verdict::network);
}

TEST(Route, ports_and_ranges) {
  EXPECT_EQ(decide("*:22", "::1", 22), Verdict::mount);
  EXPECT_EQ(decide("*:22", "::1", 23), Verdict::network);
  EXPECT_EQ(decide("[::1]:80-90", "::1", 80), Verdict::mount);
  EXPECT_EQ(decide("[::1]:80-90", "::1", 90), Verdict::mount);
  EXPECT_EQ(decide("[::1]:80-90", "::1", 91), Verdict::network);
  EXPECT_EQ(decide("10.0.0.0/8:0-65535", "10.1.1.1", 65535), Verdict::mount);
}

TEST(Route, mapped_addresses_match_as_ipv4) {
  EXPECT_EQ(decide("127.0.0.0/8", "::ffff:127.0.0.1", 22), Verdict::mount);
  EXPECT_EQ(decide("[::]/0", "::ffff:127.0.0.1", 22), Verdict::network);
}

TEST(Route, blanks_and_empty_rules_are_ignored) {
  EXPECT_EQ(decide(" !*:1 ,, * ,", "127.0.0.1", 2), Verdict::mount);
  EXPECT_EQ(first_malformed(" !*:1 ,, * ,"), "");
}

TEST(Route, every_malformed_rule_is_named) {
  for (const char* rule : {"**",
                           "!",
                           "?",
                           "!!*",
                           "*??",
                           "127.0.0.1:",
                           "127.0.0.1:65536",
                           "127.0.0.1:9-8",
                           "127.0.0.1:1-",
                           "127.0.0",
                           "127.0.0.256",
                           "127.0.0.1/33",
                           "127.0.0.1/",
                           "[::1",
                           "::1",
                           "[::1]/129",
                           "[127.0.0.1]",
                           "localhost",
                           "127.0.0.1 :22",
                           "*/8",
                           "127.0.0.1:000022",
                           "127.0.0.1:-1",
                           "[::1%eth0]",
                           "*:22:23"}) {
    EXPECT_EQ(first_malformed(rule), rule);
    EXPECT_EQ(first_malformed(std::string("!*:7,") + rule + ",*"), rule);
  }
}

TEST(Route, a_typo_refuses_whatever_no_earlier_rule_matched) {
  EXPECT_EQ(decide("!*:53,127.0.0.l,*", "127.0.0.1", 53), Verdict::network);
  EXPECT_EQ(decide("!*:53,127.0.0.l,*", "127.0.0.1", 22), Verdict::refuse);
  EXPECT_EQ(decide("!*:53,127.0.0.l,*", "::1", 22), Verdict::refuse);
}

TEST(Route, one_rule_too_many_refuses) {
  std::string rules;
  for (std::size_t i = 0; i < Routes::kMaxRules; ++i) rules += "10.0.0.1:" + std::to_string(i + 1) + ",";
  EXPECT_EQ(first_malformed(rules), "");
  EXPECT_EQ(decide(rules, "10.0.0.1", Routes::kMaxRules), Verdict::mount);
  EXPECT_EQ(decide(rules, "10.0.0.1", 999), Verdict::network);
  EXPECT_EQ(first_malformed(rules + "!*"), "!*");
  EXPECT_EQ(decide(rules + "!*", "10.0.0.1", 999), Verdict::refuse);
}

TEST(Destination, short_addresses_are_not_ours) {
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  const auto* address = reinterpret_cast<const sockaddr*>(&v6);
  EXPECT_EQ(destination_of(address, 23).family, AF_UNSPEC);
  EXPECT_EQ(destination_of(address, 24).family, AF_INET6) << "RFC 2133 has no scope";
  EXPECT_EQ(destination_of(nullptr, 24).family, AF_UNSPEC);
  v6.sin6_family = AF_UNIX;
  EXPECT_EQ(destination_of(address, sizeof v6).family, AF_UNSPEC);
}

TEST(Destination, text_is_the_name_in_the_mount) {
  const auto text = [](const char* address, std::uint16_t port) {
    Text<64> line;
    line << destination(address, port);
    return std::string(line.view());
  };
  EXPECT_EQ(text("127.0.0.1", 22), "127.0.0.1:22");
  EXPECT_EQ(text("::ffff:127.0.0.1", 22), "127.0.0.1:22");
  EXPECT_EQ(text("2001:db8::1", 65535), "[2001:db8::1]:65535");
}

TEST(Text, what_does_not_fit_is_dropped_and_told) {
  Text<8> text;
  text << "abc" << 12345;
  EXPECT_EQ(text.view(), "abc1234");
  EXPECT_FALSE(text.complete());
}

}  // namespace
}  // namespace nvsock::preload
