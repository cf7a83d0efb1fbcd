// Names of places inside the drive: one spelling, one place; everything else is refused with the value.
#include "libnvsock/socket/endpoint.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstring>

#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using test::expect_sentence;

std::string canonical(std::string_view text) {
  const Result<Endpoint> endpoint = parse_endpoint(text);
  return endpoint ? endpoint->text() : "refused: " + endpoint.error().text;
}

std::string canonical_host(std::string_view text) {
  const Result<Endpoint> endpoint = parse_host(text);
  return endpoint ? endpoint->host : "refused: " + endpoint.error().text;
}

TEST(Endpoint, ipv4_address_and_port) {
  const Result<Endpoint> endpoint = parse_endpoint("127.0.0.1:22");
  ASSERT_TRUE(endpoint);
  EXPECT_EQ(endpoint->kind, Endpoint::Kind::ipv4);
  EXPECT_EQ(endpoint->host, "127.0.0.1");
  EXPECT_EQ(endpoint->port, 22);
  EXPECT_EQ(endpoint->family(), AF_INET);
}

TEST(Endpoint, ipv6_address_in_brackets_and_port) {
  const Result<Endpoint> endpoint = parse_endpoint("[fe80::1]:443");
  ASSERT_TRUE(endpoint);
  EXPECT_EQ(endpoint->kind, Endpoint::Kind::ipv6);
  EXPECT_EQ(endpoint->host, "fe80::1");
  EXPECT_EQ(endpoint->port, 443);
  EXPECT_EQ(endpoint->family(), AF_INET6);
}

TEST(Endpoint, name_and_port) {
  const Result<Endpoint> endpoint = parse_endpoint("db.local:5432");
  ASSERT_TRUE(endpoint);
  EXPECT_EQ(endpoint->kind, Endpoint::Kind::name);
  EXPECT_EQ(endpoint->host, "db.local");
  EXPECT_EQ(endpoint->port, 5432);
  EXPECT_EQ(endpoint->family(), AF_UNSPEC);
}

TEST(Endpoint, many_spellings_of_an_ipv6_address_are_one) {
  for (const char* text : {"[::1]:80", "[0:0:0:0:0:0:0:1]:80", "[0000::0001]:80", "[::0:1]:80"}) {
    EXPECT_EQ(canonical(text), "[::1]:80") << text;
  }
  EXPECT_EQ(canonical("[2001:DB8::A]:1"), "[2001:db8::a]:1");
  EXPECT_EQ(canonical("[::ffff:1.2.3.4]:1"), "[::ffff:1.2.3.4]:1");
}

TEST(Endpoint, names_are_lower_case) {
  EXPECT_EQ(canonical("Db-1.LOCAL:80"), "db-1.local:80");
}

TEST(Endpoint, the_text_of_an_endpoint_parses_to_itself) {
  for (const char* text :
       {"10.0.0.255:65535", "[::]:1", "a_b.c:7", "xn--bcher-kva.example:80", "3com.net:80"}) {
    EXPECT_EQ(canonical(text), text);
  }
}

TEST(Endpoint, host_alone_takes_ipv6_with_and_without_brackets) {
  EXPECT_EQ(canonical_host("::1"), "::1");
  EXPECT_EQ(canonical_host("[::1]"), "::1");
  EXPECT_EQ(canonical_host("192.168.0.1"), "192.168.0.1");
  EXPECT_EQ(canonical_host("Name"), "name");
}

TEST(Endpoint, longest_name_and_longest_label_are_taken_and_one_more_byte_is_not) {
  const std::string label(63, 'a');
  const std::string longest = label + "." + label + "." + label + "." + std::string(61, 'b');
  ASSERT_EQ(longest.size(), max_host_length);
  EXPECT_EQ(canonical_host(longest), longest);
  const Result<Endpoint> longer = parse_host(longest + "b");
  expect_sentence(longer, "longer than 253");
  expect_sentence(parse_host(label + "a"), std::string(64, 'a'));
}

TEST(Endpoint, ports_are_1_to_65535_in_plain_decimal) {
  EXPECT_EQ(*parse_port("1"), 1);
  EXPECT_EQ(*parse_port("65535"), 65535);
  for (const char* text : {"0", "65536", "70000", "00", "4294967297", "18446744073709551617"}) {
    expect_sentence(parse_port(text), "port \"" + std::string(text) + "\" is out of range (1-65535)");
  }
  for (const char* text : {"022", "01"}) {
    expect_sentence(parse_port(text), "port \"" + std::string(text) + "\" starts with a zero");
  }
  for (const char* text : {"-1", "+1", " 1", "1 ", "1x", "0x16", "1.0", "no-such-service"}) {
    expect_sentence(parse_port(text),
                    "port \"" + std::string(text) + "\" is neither a number nor a service name");
  }
  expect_sentence(parse_port(""), "the port is empty");
}

TEST(Endpoint, services_are_ports) {
  EXPECT_EQ(*parse_port("ssh"), 22);
  EXPECT_EQ(*parse_port("http"), 80);
  EXPECT_EQ(*parse_port("www"), 80) << "an alias";
  EXPECT_EQ(canonical("127.0.0.1:ssh"), "127.0.0.1:22");
}

TEST(Endpoint, services_of_other_protocols_are_no_ports) {
  ASSERT_FALSE(parse_port("bootps"));  // 67/udp only
  EXPECT_EQ(parse_port("bootps").error().code, EINVAL);
}

// Left: the text. Right: what the sentence must show of it.
TEST(Endpoint, malformed_hosts_are_refused_with_the_value) {
  for (const char* text :
       {"127.1",        "127.0.0",    "127.0.0.0.1", "010.0.0.1", "127.0.0.01", "256.0.0.1",     "1.2.3.4.",
        "0x7f.0.0.1",   "0x7f000001", "2130706433",  "1.2.3.0x4", "host.0X1",   "host.1",        ".host",
        "host.",        "a..b",       ".",           "-a",        "a-",         "a.-b",          "a-.b",
        "a b",          "a/b",        "a\\b",        "a@b",       "a%b",        "h\xc3\xb6st",   "*",
        "fe80::1%eth0", ":::",        "1::2::3",     "12345::",   "::g",        "1:2:3:4:5:6:7", "::1/64",
        " ::1"}) {
    const Result<Endpoint> host = parse_host(text);
    ASSERT_FALSE(host) << text;
    EXPECT_EQ(host.error().code, EINVAL) << text;
    std::string shown;
    for (const char* c = text; *c != 0; ++c) shown += *c > 0x1f && *c < 0x7f ? *c : '?';
    expect_sentence(host, "\"" + shown + "\"");
  }
}

TEST(Endpoint, malformed_brackets_are_refused_with_the_value) {
  for (const char* text : {"[", "]", "[]", "[::1", "::1]", "[127.0.0.1", "a]"}) {
    expect_sentence(parse_host(text), "\"" + std::string(text) + "\"");
  }
  for (const char* text : {"[127.0.0.1]", "[name]", "[[::1]]", "[::1]x]", "[ ::1]"}) {
    expect_sentence(parse_host(text), "\"" + std::string(text) + "\" is not an IPv6 address");
  }
}

TEST(Endpoint, malformed_endpoints_are_refused_with_the_value) {
  for (const char* text : {"127.0.0.1", "name", "22", "[]", "[::1]"}) {
    expect_sentence(parse_endpoint(text), "no port in \"" + std::string(text) + "\" (HOST:PORT)");
  }
  for (const char* text : {"::1:22", "1:2:3", "fe80::1:22", "127.0.0.1:22:23", "[::1:22"}) {
    expect_sentence(parse_endpoint(text), "the IPv6 address in \"" + std::string(text) + "\" needs brackets");
  }
  for (const char* text :
       {"127.0.0.1:", "127.0.0.1:0", "127.0.0.1:70000", "name:-1", "[::1]:x y", "name:022"}) {
    const Result<Endpoint> endpoint = parse_endpoint(text);
    expect_sentence(endpoint, "port");
    expect_sentence(endpoint, "in \"" + std::string(text) + "\"");
    EXPECT_EQ(endpoint.error().code, EINVAL);
  }
  expect_sentence(parse_endpoint(":80"), "the host is empty");
  expect_sentence(parse_endpoint(""), "no port");
  expect_sentence(parse_endpoint("127.1:80"), "\"127.1\" is neither an address nor a host name");
}

TEST(Endpoint, bytes_from_outside_are_shown_printable_and_bounded) {
  expect_sentence(parse_host("a\033[31m\n"), "\"a?[31m?\"");
  const std::string shown = parse_port(std::string(1000, 'p')).error().text;
  EXPECT_LT(shown.size(), 200u);
  EXPECT_NE(shown.find("ppp...\""), std::string::npos) << shown;
}

TEST(Endpoint, a_zero_byte_does_not_cut_an_address_short) {
  expect_sentence(parse_host(std::string_view("127.0.0.1\0.evil", 15)), "zero byte");
  EXPECT_FALSE(parse_endpoint(std::string_view("127.0.0.1\0:22", 13)));
  EXPECT_FALSE(parse_port(std::string_view("22\0", 3)));
}

TEST(Endpoint, socket_addresses) {
  sockaddr_storage storage;
  ASSERT_EQ(parse_endpoint("1.2.3.4:258")->to_sockaddr(storage), sizeof(sockaddr_in));
  sockaddr_in v4;
  std::memcpy(&v4, &storage, sizeof v4);
  EXPECT_EQ(v4.sin_family, AF_INET);
  EXPECT_EQ(ntohl(v4.sin_addr.s_addr), 0x01020304u);
  EXPECT_EQ(ntohs(v4.sin_port), 258);

  ASSERT_EQ(parse_endpoint("[::2]:258")->to_sockaddr(storage), sizeof(sockaddr_in6));
  sockaddr_in6 v6;
  std::memcpy(&v6, &storage, sizeof v6);
  EXPECT_EQ(v6.sin6_family, AF_INET6);
  EXPECT_EQ(v6.sin6_addr.s6_addr[15], 2);
  EXPECT_EQ(ntohs(v6.sin6_port), 258);

  EXPECT_EQ(parse_endpoint("name:1")->to_sockaddr(storage), 0u);
}

TEST(Endpoint, the_type_chooses_the_service_names) {
  const auto udp = parse_endpoint("127.0.0.1:tftp", SocketType::datagram);
  ASSERT_TRUE(udp);
  EXPECT_EQ(udp->path(), "udp/127.0.0.1:69");
  EXPECT_FALSE(parse_endpoint("127.0.0.1:tftp"));
  EXPECT_EQ(parse_endpoint("[::1]:ssh")->path(), "tcp/[::1]:22");
}

}  // namespace
}  // namespace nvsock
