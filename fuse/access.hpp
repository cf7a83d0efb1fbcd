// The one place that decides what users may do on the mount.
//
// The mount's owner, whose csdfs it is, and root may do everything. What others may, where the kernel lets
// them in at all (allow_other), the rules of the access file say; without one they may open no connection and
// publish nothing. Connections that are open stay so when the rules change.
//
// Threads: event loop only, and nothing blocks: rules are loaded again on a thread of their own, because
// whoever knows the names of users may be slow.
#pragma once

#include <fuse_lowlevel.h>
#include <spdlog/logger.h>

#include <asio/io_context.hpp>
#include <string>

#include "fuse/access_rules.hpp"
#include "libnvsock/base/background_call.hpp"
#include "libnvsock/base/result.hpp"

namespace csdfs {

class Access {
 public:
  Access(asio::io_context& loop, spdlog::logger& log);

  // Before the kernel mounts: obey these rules, which came from `file`, an absolute path.
  void obey(AccessRules rules, std::string file);
  // Has the file read again, if there is one; the log tells how that went. With a mistake in it, what held
  // before goes on to hold. False: there is no file.
  bool reload();

  bool has_rules() const { return !file_.empty(); }
  // Does all of the mount belong to this user?
  bool owns_all(uid_t user) const { return user == 0 || user == owner_; }
  // EACCES with a sentence.
  nvsock::Result<void> check(const Caller& caller, AccessKind kind, const nvsock::Endpoint& place) const;

 private:
  void loaded(nvsock::Result<AccessRules> rules);

  spdlog::logger& log_;
  const uid_t owner_;
  AccessRules rules_;
  std::string file_;  // empty: none
  nvsock::BackgroundCall<nvsock::Result<AccessRules>> loading_;
  bool load_again_ = false;  // the file may have changed behind the one who reads it
};

// Who sent a request; to be asked only until that is answered.
Caller caller_of(fuse_req_t request);

}  // namespace csdfs
