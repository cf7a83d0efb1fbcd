// Patterns of places: what they match however it is spelled, and what is no pattern.
#include "libnvsock/socket/endpoint_pattern.hpp"

#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

bool matches(std::string_view pattern, std::string_view place) {
  const Result<EndpointPattern> parsed = parse_endpoint_pattern(pattern);
  EXPECT_TRUE(parsed) << parsed.error().text;
  return parsed && parsed->matches(*parse_endpoint(place));
}

TEST(EndpointPattern, a_host_and_port_match_themselves_alone) {
  EXPECT_TRUE(matches("127.0.0.1:22", "127.0.0.1:22"));
  EXPECT_FALSE(matches("127.0.0.1:22", "127.0.0.1:23"));
  EXPECT_FALSE(matches("127.0.0.1:22", "127.0.0.2:22"));
  EXPECT_FALSE(matches("127.0.0.1:22", "[::1]:22"));
}

TEST(EndpointPattern, a_star_is_any_host_or_port) {
  EXPECT_TRUE(matches("*:22", "[2001:db8::1]:22"));
  EXPECT_TRUE(matches("*:22", "db.local:22"));
  EXPECT_FALSE(matches("*:22", "db.local:23"));
  EXPECT_TRUE(matches("[::1]:*", "[::1]:9"));
  EXPECT_TRUE(matches("*:*", "127.0.0.1:1"));
}

TEST(EndpointPattern, no_other_spelling_of_an_address_gets_around_it) {
  EXPECT_TRUE(matches("[2001:db8::1]:22", "[2001:0DB8:0:0:0:0:0:1]:22"));
  EXPECT_TRUE(matches("[2001:DB8:0::1]:22", "[2001:db8::1]:22"));
  EXPECT_TRUE(matches("127.0.0.1:22", "[::ffff:127.0.0.1]:22"));
  EXPECT_TRUE(matches("127.0.0.1:22", "[::ffff:7f00:1]:22"));
  EXPECT_TRUE(matches("[::ffff:127.0.0.1]:22", "127.0.0.1:22"));
  EXPECT_FALSE(matches("127.0.0.1:22", "[::127.0.0.1]:22"));
}

TEST(EndpointPattern, a_name_matches_the_name_and_no_address) {
  EXPECT_TRUE(matches("DB.local:22", "db.LOCAL:22"));
  EXPECT_FALSE(matches("localhost:22", "127.0.0.1:22"));
  EXPECT_FALSE(matches("127.0.0.1:22", "localhost:22"));
}

TEST(EndpointPattern, ports_have_names) {
  EXPECT_TRUE(matches("*:ssh", "127.0.0.1:22"));
}

TEST(EndpointPattern, sentences_name_what_is_wrong) {
  for (const char* text :
       {"", "127.0.0.1", "*", "127.0.0.1:0", "127.0.0.1:", ":22", "[::1:22", "*.local:1"}) {
    EXPECT_FALSE(parse_endpoint_pattern(text)) << text;
  }
  test::expect_sentence(parse_endpoint_pattern("::1:22"), "\"::1\" needs brackets");
  test::expect_sentence(parse_endpoint_pattern("127.0.0.1:nonsense"), "\"nonsense\"");
}

}  // namespace
}  // namespace nvsock
