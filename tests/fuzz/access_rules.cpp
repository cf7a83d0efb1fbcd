// Access files: any text is rules or a sentence with its line, and what the rules decide does not depend on
// how a place is spelled.
#include "fuse/access_rules.hpp"

#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace csdfs;
using nvsock::Endpoint;
using nvsock::Error;
using nvsock::Result;
using nvsock::fuzz::check;

// Three accounts: names would be too long for a mutation to find.
Result<uint32_t> account(const std::string& name) {
  if (name == "a") return 1u;
  if (name == "b") return 2u;
  return Error{ENOENT, "there is no such account"};
}

Endpoint place(std::string_view text) {
  return *nvsock::parse_endpoint(text);
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto rules = AccessRules::parse(text, "rules", {.user = account, .group = account});
  if (!rules) {
    const std::string& sentence = rules.error().text;
    check(rules.error().code != 0, "a refusal has an errno");
    check(sentence.starts_with("rules:") && sentence.size() < 600,
          "a refusal is told in a sentence with its line");
    check(std::all_of(sentence.begin(), sentence.end(), [](char c) { return c >= 0x20 && c < 0x7f; }),
          "it is printable");
    return 0;
  }
  check(rules->lines() <= AccessRules::most, "there are no more rules than may be");
  const auto lines = static_cast<unsigned>(std::ranges::count(text, '\n')) + 1;
  for (uid_t user = 0; user < 3; ++user) {
    const Caller caller{
        .user = user, .group = 1, .groups = [] { return std::optional(std::vector<gid_t>{2}); }};
    const Caller hidden{
        .user = user, .group = 1, .groups = [] { return std::optional<std::vector<gid_t>>(); }};
    for (const AccessKind kind : {AccessKind::tcp, AccessKind::udp, AccessKind::listen}) {
      const auto verdict = rules->judge(caller, kind, place("127.0.0.1:22"));
      check(verdict.line <= lines && (verdict.line != 0 || !verdict.allowed), "a rule of the text decided");
      check(rules->judge(caller, kind, place("[::ffff:127.0.0.1]:22")).line == verdict.line,
            "one place, one verdict");
      if (kind != AccessKind::listen) {
        check(rules->judge(caller, kind, place("0.0.0.0:22")).line == verdict.line,
              "also by Linux's short form");
      }
      const auto blind = rules->judge(hidden, kind, place("127.0.0.1:22"));
      check(!blind.groups_unknown || !blind.allowed, "who hides its groups gains nothing");
    }
  }
  return 0;
}
