// What users may do on a mount that others than its owner may enter: the rules of an access file.
//
//   # who       what         where
//   allow  %db      tcp          127.0.0.1:5432
//   allow  alice,7  tcp,udp      *:domain
//   deny   *        *            *:22
//
// One rule a line; the first that fits decides, and where none does, nothing is allowed. WHO and WHAT are
// words joined by commas, or * for all. A word of WHO is a user, or a group behind %, by name or number; of
// WHAT it is tcp, udp or listen. WHERE is HOST:PORT (libnvsock/socket/endpoint_pattern.hpp). A word that
// begins with # ends its line.
//
// Whether the one who asks is in a group is asked only where a rule of a group comes up: for other than the
// first group the answer costs a file of /proc.
//
// Threads: parsing, any; it blocks as long as `accounts` does. A finished set of rules is constant.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libnvsock/base/result.hpp"
#include "libnvsock/socket/endpoint.hpp"
#include "libnvsock/socket/endpoint_pattern.hpp"

namespace csdfs {

enum class AccessKind : uint8_t { tcp, udp, listen };
std::string_view name_of(AccessKind kind);

// Who asks, as the kernel told it.
struct Caller {
  uid_t user = 0;
  gid_t group = 0;
  pid_t process = 0;  // for the log
  // The other groups; none: they cannot be known.
  std::function<std::optional<std::vector<gid_t>>()> groups;
};

// Where names of users and groups are looked up. ENOENT: there is none of that name.
struct Accounts {
  std::function<nvsock::Result<uid_t>(const std::string& name)> user;
  std::function<nvsock::Result<gid_t>(const std::string& name)> group;
};

class AccessRules {
 public:
  static constexpr size_t most = 4096;  // of a file; those of lists count for each kind

  struct Verdict {
    bool allowed = false;
    unsigned line = 0;            // of the rule that decided; 0: there is none
    bool groups_unknown = false;  // there, so that it could not be told whether it fits
  };
  Verdict judge(const Caller& caller, AccessKind kind, const nvsock::Endpoint& place) const;
  size_t lines() const { return lines_; }  // that hold a rule

  // EINVAL with a sentence that begins with FILE and the line.
  static nvsock::Result<AccessRules> parse(std::string_view text, const std::string& file,
                                           const Accounts& accounts);

 private:
  struct Who {
    enum class Kind : uint8_t { all, user, group };
    Kind kind = Kind::all;
    uint32_t id = 0;
  };
  // Of one kind: a line that names several makes several.
  struct Rule {
    bool allows = false;
    unsigned line = 0;
    AccessKind kind = AccessKind::tcp;
    nvsock::EndpointPattern where;
    std::vector<Who> who;
  };
  class Parser;
  class Groups;

  std::vector<Rule> rules_;
  size_t lines_ = 0;
};

}  // namespace csdfs
