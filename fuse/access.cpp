#include "fuse/access.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "fuse/access_file.hpp"

namespace csdfs {
namespace {

using nvsock::Endpoint;
using nvsock::Error;
using nvsock::Result;

std::optional<std::vector<gid_t>> other_groups(fuse_req_t request) {
  std::vector<gid_t> groups(64);
  while (true) {
    const int count = fuse_req_getgroups(request, static_cast<int>(groups.size()), groups.data());
    if (count < 0) return std::nullopt;
    const bool all = static_cast<size_t>(count) <= groups.size();
    groups.resize(static_cast<size_t>(count));
    if (all) return groups;
  }
}

}  // namespace

Caller caller_of(fuse_req_t request) {
  const fuse_ctx* const told = fuse_req_ctx(request);
  return {.user = told->uid, .group = told->gid, .process = told->pid, .groups = [request] {
            return other_groups(request);
          }};
}

Access::Access(asio::io_context& loop, spdlog::logger& log) : log_(log), owner_(getuid()), loading_(loop) {}

void Access::obey(AccessRules rules, std::string file) {
  rules_ = std::move(rules);
  file_ = std::move(file);
}

bool Access::reload() {
  if (file_.empty()) return false;
  if (loading_.running()) {
    load_again_ = true;
    return true;
  }
  const int error = loading_.start([file = file_, owner = owner_] { return load_access_rules(file, owner); },
                                   [this](Result<AccessRules> rules) { loaded(std::move(rules)); });
  if (error != 0) loaded(Error{error, file_ + ": no thread to read it: " + std::strerror(error)});
  return true;
}

void Access::loaded(Result<AccessRules> rules) {
  if (rules) {
    rules_ = std::move(*rules);
    log_.info("access rules: {} is read again, {} rules", file_, rules_.lines());
  } else {
    log_.error("{}; the access rules stay as they were", rules.error().text);
  }
  if (std::exchange(load_again_, false)) reload();
}

Result<void> Access::check(const Caller& caller, AccessKind kind, const Endpoint& place) const {
  if (owns_all(caller.user)) return {};
  const AccessRules::Verdict verdict = rules_.judge(caller, kind, place);
  if (verdict.allowed) return {};
  const std::string why = verdict.groups_unknown
                              ? "its groups, of which line " + std::to_string(verdict.line) + " of " + file_ +
                                    " has one, cannot be read"
                          : verdict.line != 0 ? "line " + std::to_string(verdict.line) + " of " + file_
                          : file_.empty()     ? "there is no access file"
                                              : "no rule of " + file_ + " allows it";
  const std::string what = kind == AccessKind::listen ? "publish at " + place.text() : "open " + place.path();
  return Error{EACCES, "user " + std::to_string(caller.user) + ", process " + std::to_string(caller.process) +
                           ", may not " + what + ": " + why};
}

}  // namespace csdfs
