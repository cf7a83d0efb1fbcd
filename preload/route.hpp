// Which connects go to the mount: the rule list of NVSOCK_ROUTE.
//
//   rules   = rule *("," rule)           first match wins; nothing matches: the real network
//   rule    = ["!"] pattern ["?"]        "!" the real network; "?" the real network if the mount is
//                                        missing or dead, instead of an error
//   pattern = ["tcp/" | "udp/"] host [":" port ["-" port]]       without either: TCP
//   host    = "*" | IPv4 ["/" prefix] | "[" IPv6 "]" ["/" prefix]
//
// An IPv4-mapped IPv6 destination matches as IPv4. Blanks around a rule, and empty rules, are ignored.
//
// A typo must not send anything to a place the user did not choose, neither the network nor the drive:
// from a malformed rule on, and after the last rule there is room for, the verdict is `refuse`.
//
// Threads: parse() before there are several; then the table is constant, and any may ask.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "preload/destination.hpp"

namespace nvsock::preload {

enum class Verdict : std::uint8_t {
  network,           // the real connect()
  mount,             // the mount, or an error
  mount_or_network,  // the mount; the real connect() if there is none
  refuse,            // ENETUNREACH: the rules cannot be understood
};

struct Rule {
  Verdict verdict = Verdict::refuse;
  std::uint8_t type = 0;   // SOCK_STREAM, SOCK_DGRAM; 0: both
  int family = AF_UNSPEC;  // AF_UNSPEC: both
  unsigned prefix = 0;     // bits of `address` that must be equal
  std::uint8_t address[16] = {};
  std::uint16_t first_port = 0;
  std::uint16_t last_port = 65535;
};

class Routes {
 public:
  static constexpr std::size_t kMaxRules = 64;  // 2 KiB of static memory; lists are written by hand

  // Replaces the rules. Returns the text of the rule at which understanding ended, empty if there is none.
  std::string_view parse(std::string_view rules);

  // `type` is SOCK_STREAM or SOCK_DGRAM.
  Verdict decide(const Destination& to, int type) const;
  // Some rule may send datagrams elsewhere than the network.
  bool names_datagrams() const { return names_datagrams_; }

 private:
  Rule rules_[kMaxRules + 1];  // the last for a refusal
  std::size_t count_ = 0;
  bool names_datagrams_ = false;
};

}  // namespace nvsock::preload
