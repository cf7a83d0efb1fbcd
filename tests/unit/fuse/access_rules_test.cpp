// Access rules: which one decides, whom and what it fits, and what is no rule.
#include "fuse/access_rules.hpp"

#include "tests/unit/support.hpp"

namespace csdfs {
namespace {

using nvsock::Error;
using nvsock::parse_endpoint;
using nvsock::Result;
using nvsock::test::expect_sentence;

constexpr AccessKind tcp = AccessKind::tcp, udp = AccessKind::udp, listen = AccessKind::listen;

// alice is 1, bob is 2; 7 is the name of user 70; the group db is 10, and dev 11.
Result<uint32_t> account(const std::string& name,
                         std::initializer_list<std::pair<const char*, uint32_t>> all) {
  for (const auto& [known, id] : all) {
    if (name == known) return id;
  }
  if (name == "slow") return Error{EIO, "user \"slow\" cannot be looked up"};
  return Error{ENOENT, "there is no account " + name};
}

Result<AccessRules> parse(std::string_view text) {
  const Accounts accounts{.user =
                              [](const std::string& name) {
                                return account(name, {{"alice", 1}, {"bob", 2}, {"7", 70}});
                              },
                          .group =
                              [](const std::string& name) {
                                return account(name, {{"db", 10}, {"dev", 11}});
                              }};
  return AccessRules::parse(text, "rules", accounts);
}

Caller user(uid_t id, gid_t first = 99, std::vector<gid_t> others = {}) {
  return {.user = id, .group = first, .groups = [others] { return std::optional(others); }};
}

AccessRules::Verdict judge(std::string_view text, const Caller& caller, AccessKind kind,
                           std::string_view place) {
  const Result<AccessRules> rules = parse(text);
  EXPECT_TRUE(rules) << rules.error().text;
  return rules ? rules->judge(caller, kind, *parse_endpoint(place)) : AccessRules::Verdict{};
}

bool allowed(std::string_view text, const Caller& caller, AccessKind kind, std::string_view place) {
  return judge(text, caller, kind, place).allowed;
}

TEST(AccessRules, without_a_rule_nothing_is_allowed) {
  EXPECT_FALSE(allowed("", user(1), tcp, "127.0.0.1:22"));
  EXPECT_FALSE(allowed("# allow * * *:*\n\n", user(1), tcp, "127.0.0.1:22"));
  EXPECT_FALSE(allowed("deny bob tcp *:*", user(1), tcp, "127.0.0.1:22"));
}

TEST(AccessRules, the_first_that_fits_decides_and_is_named) {
  constexpr std::string_view text =
      "# two\ndeny bob tcp 127.0.0.1:22\n\nallow * tcp 127.0.0.1:*\ndeny * * *:*\n";
  EXPECT_TRUE(allowed(text, user(1), tcp, "127.0.0.1:22"));
  EXPECT_FALSE(allowed(text, user(2), tcp, "127.0.0.1:22"));
  EXPECT_TRUE(allowed(text, user(2), tcp, "127.0.0.1:23"));
  EXPECT_EQ(judge(text, user(2), tcp, "127.0.0.1:22").line, 2u);
  EXPECT_EQ(judge(text, user(2), tcp, "127.0.0.1:23").line, 4u);
  EXPECT_EQ(judge(text, user(2), udp, "127.0.0.1:23").line, 5u);
  EXPECT_FALSE(allowed("deny * tcp *:*\nallow bob tcp *:*", user(2), tcp, "127.0.0.1:22"));
}

TEST(AccessRules, each_kind_is_allowed_by_itself) {
  EXPECT_FALSE(allowed("allow bob tcp *:*", user(2), udp, "127.0.0.1:53"));
  EXPECT_FALSE(allowed("allow bob tcp,udp *:*", user(2), listen, "127.0.0.1:53"));
  EXPECT_TRUE(allowed("allow bob tcp,listen *:*", user(2), listen, "127.0.0.1:53"));
  for (const AccessKind kind : {tcp, udp, listen}) {
    EXPECT_TRUE(allowed("allow bob * *:*", user(2), kind, "127.0.0.1:53"));
  }
}

TEST(AccessRules, a_list_fits_each_of_its_users) {
  constexpr std::string_view text = "allow alice,bob tcp *:*";
  EXPECT_TRUE(allowed(text, user(1), tcp, "127.0.0.1:1"));
  EXPECT_TRUE(allowed(text, user(2), tcp, "127.0.0.1:1"));
  EXPECT_FALSE(allowed(text, user(3), tcp, "127.0.0.1:1"));
}

TEST(AccessRules, numbers_are_accounts_unless_they_are_a_name) {
  EXPECT_TRUE(allowed("allow 65534 tcp *:*", user(65534), tcp, "127.0.0.1:1"));
  EXPECT_TRUE(allowed("allow %65534 tcp *:*", user(3, 65534), tcp, "127.0.0.1:1"));
  EXPECT_TRUE(allowed("allow 7 tcp *:*", user(70), tcp, "127.0.0.1:1"));
  EXPECT_FALSE(allowed("allow 7 tcp *:*", user(7), tcp, "127.0.0.1:1"));
}

TEST(AccessRules, a_group_is_the_first_or_one_of_the_others) {
  EXPECT_TRUE(allowed("allow %db tcp *:*", user(3, 10), tcp, "127.0.0.1:1"));
  EXPECT_TRUE(allowed("allow %db tcp *:*", user(3, 99, {5, 10}), tcp, "127.0.0.1:1"));
  EXPECT_FALSE(allowed("allow %db tcp *:*", user(10, 99, {11}), tcp, "127.0.0.1:1"));
}

TEST(AccessRules, groups_are_asked_for_once_and_only_when_one_comes_up) {
  int asked = 0;
  Caller caller = user(1, 11);
  caller.groups = [&] {
    ++asked;
    return std::optional(std::vector<gid_t>{});
  };
  constexpr std::string_view text =
      "allow %db tcp *:22\nallow %dev,%db udp *:53\nallow %db tcp *:*\nallow alice tcp *:80";
  EXPECT_TRUE(allowed(text, caller, udp, "127.0.0.1:53"));
  EXPECT_EQ(asked, 0) << "the first group is known";
  EXPECT_TRUE(allowed("allow alice,%db tcp *:*", caller, tcp, "127.0.0.1:1"));
  EXPECT_EQ(asked, 0) << "the user is";
  EXPECT_TRUE(allowed("allow %db udp *:*\nallow * tcp *:*", caller, tcp, "127.0.0.1:1"));
  EXPECT_EQ(asked, 0) << "the rule is about something else";
  EXPECT_FALSE(allowed(text, caller, tcp, "127.0.0.1:22"));
  EXPECT_EQ(asked, 1);
}

TEST(AccessRules, who_hides_its_groups_gets_past_no_rule_of_a_group) {
  Caller caller = user(1);
  caller.groups = [] { return std::optional<std::vector<gid_t>>(); };
  const AccessRules::Verdict verdict =
      judge("deny %db tcp *:22\nallow * tcp *:*", caller, tcp, "127.0.0.1:22");
  EXPECT_FALSE(verdict.allowed);
  EXPECT_TRUE(verdict.groups_unknown);
  EXPECT_TRUE(allowed("deny %db tcp *:22\nallow * tcp *:*", caller, tcp, "127.0.0.1:80"));
  EXPECT_TRUE(allowed("allow %db,alice tcp *:22", caller, tcp, "127.0.0.1:22"));
}

TEST(AccessRules, no_other_spelling_gets_around_a_rule) {
  constexpr std::string_view v4 = "deny * tcp 127.0.0.1:22\nallow * tcp *:*";
  for (const char* place : {"127.0.0.1:22", "[::ffff:127.0.0.1]:22", "0.0.0.0:22", "[::ffff:0.0.0.0]:22"}) {
    EXPECT_FALSE(allowed(v4, user(1), tcp, place)) << place;
  }
  constexpr std::string_view v6 = "deny * tcp [::1]:22\nallow * tcp *:*";
  for (const char* place : {"[::1]:22", "[0:0::0001]:22", "[::]:22"}) {
    EXPECT_FALSE(allowed(v6, user(1), tcp, place)) << place;
  }
  EXPECT_TRUE(allowed("allow * tcp 0.0.0.0:22", user(1), tcp, "127.0.0.1:22"));
}

TEST(AccessRules, to_listen_at_all_addresses_is_not_to_listen_at_one) {
  EXPECT_FALSE(allowed("allow * listen 127.0.0.1:80", user(1), listen, "0.0.0.0:80"));
  EXPECT_TRUE(allowed("allow * listen 0.0.0.0:80", user(1), listen, "0.0.0.0:80"));
  EXPECT_TRUE(allowed("allow * listen 0.0.0.0:80", user(1), listen, "[::ffff:0.0.0.0]:80"));
}

TEST(AccessRules, blanks_comments_and_line_ends_are_free) {
  EXPECT_TRUE(allowed("\tallow\talice   tcp 127.0.0.1:22   # ssh\r\n", user(1), tcp, "127.0.0.1:22"));
}

TEST(AccessRules, sentences_name_the_line_and_what_is_wrong) {
  const struct {
    const char* line;
    const char* names;
  } wrong[] = {
      {"permit * * *:*", "\"permit\" is neither allow nor deny"},
      {"allow * *:*", "four words"},
      {"allow * tcp *:* *:*", "four words"},
      {"allow carol tcp *:*", "there is no account carol"},
      {"allow %carol tcp *:*", "there is no account carol"},
      {"allow slow tcp *:*", "cannot be looked up"},
      {"allow alice,,bob tcp *:*", "is missing"},
      {"allow % tcp *:*", "is missing"},
      {"allow 4294967295 tcp *:*", "\"4294967295\" is out of range"},
      {"allow 4294967296 tcp *:*", "there is no account 4294967296"},
      {"allow * sctp *:*", "\"sctp\" is none of tcp, udp, listen and *"},
      {"allow * tcp 127.0.0.1", "\"127.0.0.1\": HOST:PORT is expected"},
      {"allow * tcp 127.0.0.1:70000", "out of range"},
      {"allow * listen db.local:80", "at addresses, not names"},
  };
  for (const auto& [line, names] : wrong) {
    const Result<AccessRules> rules = parse(std::string("allow * * *:*\n#\n") + line + "\n");
    expect_sentence(rules, names);
    ASSERT_FALSE(rules);
    EXPECT_TRUE(rules.error().text.starts_with("rules:3: ")) << rules.error().text;
  }
}

TEST(AccessRules, they_are_bounded) {
  std::string text;
  for (size_t i = 0; i < AccessRules::most; ++i) text += "allow * tcp *:*\n";
  EXPECT_TRUE(parse(text));
  expect_sentence(parse(text + "allow * tcp *:*\n"), "rules:4097: more than 4096 rules");
}

}  // namespace
}  // namespace csdfs
