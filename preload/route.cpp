#include "preload/route.hpp"

namespace nvsock::preload {
namespace {

constexpr std::size_t kNumberDigits = 5;

// A parser over the rest of one rule. Each function takes what it names off the front, or takes nothing
// and says false.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  bool at_end() const { return rest_.empty(); }

  bool take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }

  bool take(std::string_view word) {
    if (rest_.substr(0, word.size()) != word) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  bool number(unsigned max, unsigned& value) {
    const std::string_view digits = span("0123456789");
    if (digits.empty() || digits.size() > kNumberDigits) return false;
    unsigned sum = 0;
    for (const char c : digits) sum = sum * 10 + static_cast<unsigned>(c - '0');
    if (sum > max) return false;
    rest_.remove_prefix(digits.size());
    value = sum;
    return true;
  }

  bool address(int family, std::uint8_t (&to)[16]) {
    const std::string_view found = span(family == AF_INET ? "0123456789." : "0123456789abcdefABCDEF:.");
    char text[INET6_ADDRSTRLEN] = {};
    if (found.size() >= sizeof text) return false;
    memcpy(text, found.data(), found.size());
    if (inet_pton(family, text, to) != 1) return false;
    rest_.remove_prefix(found.size());
    return true;
  }

 private:
  std::string_view span(std::string_view set) const {
    std::size_t n = rest_.find_first_not_of(set);
    if (n == std::string_view::npos) n = rest_.size();
    return {rest_.data(), n};
  }

  std::string_view rest_;
};

bool scan_host(Scanner& in, Rule& rule) {
  if (in.take('*')) return true;
  const bool v6 = in.take('[');
  rule.family = v6 ? AF_INET6 : AF_INET;
  if (!in.address(rule.family, rule.address)) return false;
  if (v6 && !in.take(']')) return false;
  rule.prefix = v6 ? 128 : 32;
  return !in.take('/') || in.number(rule.prefix, rule.prefix);
}

bool scan_ports(Scanner& in, Rule& rule) {
  if (!in.take(':')) return true;
  unsigned first = 0;
  if (!in.number(65535, first)) return false;
  unsigned last = first;
  if (in.take('-') && !in.number(65535, last)) return false;
  rule.first_port = static_cast<std::uint16_t>(first);
  rule.last_port = static_cast<std::uint16_t>(last);
  return first <= last;
}

bool scan_rule(std::string_view text, Rule& rule) {
  Scanner in(text);
  const bool network = in.take('!');
  rule.type = in.take("udp/") ? SOCK_DGRAM : SOCK_STREAM;
  if (rule.type == SOCK_STREAM) in.take("tcp/");
  if (!scan_host(in, rule) || !scan_ports(in, rule)) return false;
  const bool optional = in.take('?');
  rule.verdict = network ? Verdict::network : optional ? Verdict::mount_or_network : Verdict::mount;
  return in.at_end();
}

bool same_prefix(const std::uint8_t* a, const std::uint8_t* b, unsigned bits) {
  if (memcmp(a, b, bits / 8) != 0) return false;
  const unsigned mask = 0xff00u >> bits % 8 & 0xffu;
  return mask == 0 || ((a[bits / 8] ^ b[bits / 8]) & mask) == 0;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

std::string_view Routes::parse(std::string_view rules) {
  count_ = 0;
  names_datagrams_ = false;
  while (!rules.empty()) {
    std::size_t end = rules.find(',');
    if (end == std::string_view::npos) end = rules.size();
    const std::string_view text = trim({rules.data(), end});
    rules.remove_prefix(end < rules.size() ? end + 1 : end);
    if (text.empty()) continue;

    Rule& rule = rules_[count_++];
    rule = Rule{};
    const bool good = count_ <= kMaxRules && scan_rule(text, rule);
    names_datagrams_ |= !good || rule.type == SOCK_DGRAM;
    if (good) continue;
    rule = Rule{};
    return text;
  }
  return {};
}

Verdict Routes::decide(const Destination& to, int type) const {
  for (std::size_t i = 0; i < count_; ++i) {
    const Rule& rule = rules_[i];
    if (rule.type != 0 && rule.type != type) continue;
    if (rule.family != AF_UNSPEC && rule.family != to.family) continue;
    if (to.port < rule.first_port || to.port > rule.last_port) continue;
    if (same_prefix(rule.address, to.address, rule.prefix)) return rule.verdict;
  }
  return Verdict::network;
}

}  // namespace nvsock::preload
