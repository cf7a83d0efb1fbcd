#include "fuse/access_rules.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "fuse/words.hpp"
#include "libnvsock/base/number.hpp"
#include "libnvsock/base/quoted.hpp"
#include "libnvsock/base/uri.hpp"

namespace csdfs {

using nvsock::Endpoint;
using nvsock::EndpointPattern;
using nvsock::Error;
using nvsock::quoted;
using nvsock::Result;
using nvsock::SocketType;

namespace {

constexpr AccessKind all_kinds[] = {AccessKind::tcp, AccessKind::udp, AccessKind::listen};

Error invalid(std::string text) {
  return {EINVAL, std::move(text)};
}

// Of a line; its comment is left out.
Words rule_words(std::string_view line) {
  Words words = words_of(line);
  words.erase(std::ranges::find_if(words, [](std::string_view word) { return word.starts_with('#'); }),
              words.end());
  return words;
}

// Where a connection gets to: Linux takes the address of no host for the loopback address, and one
// spelling of a place must not get around a rule about another. For a listener they are different places.
Endpoint reached(Endpoint place) {
  place = nvsock::unmapped(std::move(place));
  if (place.kind == Endpoint::Kind::ipv4 && place.host == "0.0.0.0") place.host = "127.0.0.1";
  if (place.kind == Endpoint::Kind::ipv6 && place.host == "::") place.host = "::1";
  return place;
}

// By name, or by number where no account has that for its name, as chown(1) does.
Result<uint32_t> look_up(std::string_view name,
                         const std::function<Result<uint32_t>(const std::string&)>& account) {
  Result<uint32_t> found = account(std::string(name));
  uint32_t number = 0;
  if (found || found.error().code != ENOENT || !nvsock::parse_number(name, number)) return found;
  if (number == UINT32_MAX) return invalid(quoted(name) + " is out of range");  // -1: "no user" to the kernel
  return number;
}

}  // namespace

std::string_view name_of(AccessKind kind) {
  switch (kind) {
    case AccessKind::tcp:
      return "tcp";
    case AccessKind::udp:
      return "udp";
    case AccessKind::listen:
      break;
  }
  return "listen";
}

// --- parsing ---

class AccessRules::Parser {
 public:
  explicit Parser(const Accounts& accounts) : accounts_(accounts) {}

  Result<void> add(std::string_view line, unsigned number) {
    const Words words = rule_words(line);
    if (words.empty()) return {};
    if (words[0] != "allow" && words[0] != "deny")
      return invalid(quoted(words[0]) + " is neither allow nor deny");
    if (words.size() != 4) return invalid("a rule has four words: allow or deny, WHO, WHAT, HOST:PORT");
    const Result<std::vector<Who>> who = parse_who(words[1]);
    if (!who) return who.error();
    const Result<std::vector<AccessKind>> kinds = parse_kinds(words[2]);
    if (!kinds) return kinds.error();
    for (const AccessKind kind : *kinds) {
      Result<EndpointPattern> where = parse_where(words[3], kind);
      if (!where) return where.error();
      if (rules.rules_.size() == most) return invalid("more than " + std::to_string(most) + " rules");
      rules.rules_.push_back({.allows = words[0] == "allow",
                              .line = number,
                              .kind = kind,
                              .where = std::move(*where),
                              .who = *who});
    }
    ++rules.lines_;
    return {};
  }

  AccessRules rules;

 private:
  Result<std::vector<Who>> parse_who(std::string_view list) {
    std::vector<Who> who;
    do {
      const std::string_view word = nvsock::take_until(list, ',');
      const bool group = word.starts_with('%');
      const std::string_view name = word.substr(group ? 1 : 0);
      if (word == "*") {
        who.push_back({.kind = Who::Kind::all});
        continue;
      }
      if (name.empty()) return invalid("a name of a user or a %group is missing");
      const Result<uint32_t> id = look_up(name, group ? accounts_.group : accounts_.user);
      if (!id) return id.error();
      who.push_back({.kind = group ? Who::Kind::group : Who::Kind::user, .id = *id});
    } while (!list.empty());
    return who;
  }

  static Result<std::vector<AccessKind>> parse_kinds(std::string_view list) {
    std::vector<AccessKind> kinds;
    if (list == "*") return std::vector(std::begin(all_kinds), std::end(all_kinds));
    do {
      const std::string_view word = nvsock::take_until(list, ',');
      const auto* const kind =
          std::ranges::find_if(all_kinds, [&](AccessKind known) { return name_of(known) == word; });
      if (kind == std::end(all_kinds)) return invalid(quoted(word) + " is none of tcp, udp, listen and *");
      kinds.push_back(*kind);
    } while (!list.empty());
    return kinds;
  }

  static Result<EndpointPattern> parse_where(std::string_view text, AccessKind kind) {
    Result<EndpointPattern> where = nvsock::parse_endpoint_pattern(
        text, kind == AccessKind::udp ? SocketType::datagram : SocketType::stream);
    if (!where) return invalid(quoted(text) + ": " + where.error().text);
    if (!where->host) return where;
    if (kind != AccessKind::listen) {
      where->host = reached(std::move(*where->host));
    } else if (where->host->kind == Endpoint::Kind::name) {
      return invalid(quoted(text) + ": services are published at addresses, not names");
    }
    return where;
  }

  const Accounts& accounts_;
};

Result<AccessRules> AccessRules::parse(std::string_view text, const std::string& file,
                                       const Accounts& accounts) {
  Parser parser(accounts);
  for (unsigned number = 1; !text.empty(); ++number) {
    const Result<void> added = parser.add(nvsock::take_until(text, '\n'), number);
    if (!added) {
      return Error{added.error().code, file + ":" + std::to_string(number) + ": " + added.error().text};
    }
  }
  return std::move(parser.rules);
}

// --- judging ---

// Of whoever asks. All but the first cost something, and are asked for once.
class AccessRules::Groups {
 public:
  explicit Groups(const Caller& caller) : caller_(caller) {}

  // None: it cannot be known.
  std::optional<bool> contain(gid_t group) {
    if (group == caller_.group) return true;
    if (!std::exchange(asked_, true)) {
      std::optional<std::vector<gid_t>> told = caller_.groups();
      known_ = told.has_value();
      if (known_) others_ = std::move(*told);
    }
    if (!known_) return std::nullopt;
    return std::ranges::find(others_, group) != others_.end();
  }

 private:
  const Caller& caller_;
  bool asked_ = false;
  bool known_ = false;
  std::vector<gid_t> others_;
};

AccessRules::Verdict AccessRules::judge(const Caller& caller, AccessKind kind, const Endpoint& place) const {
  const Endpoint where = kind == AccessKind::listen ? nvsock::unmapped(place) : reached(place);
  Groups groups(caller);
  for (const Rule& rule : rules_) {
    if (rule.kind != kind || !rule.where.matches(where)) continue;
    bool fits = false, unknown = false;
    for (const Who& who : rule.who) {
      if (who.kind != Who::Kind::group) {
        fits = fits || who.kind == Who::Kind::all || who.id == caller.user;
      } else if (!fits) {
        const std::optional<bool> member = groups.contain(who.id);
        fits = member.value_or(false);
        unknown = unknown || !member;
      }
    }
    if (fits) return {.allowed = rule.allows, .line = rule.line};
    // It may be the one that denies.
    if (unknown) return {.line = rule.line, .groups_unknown = true};
  }
  return {};
}

}  // namespace csdfs
