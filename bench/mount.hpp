// A csdfs mount for the time of a run.
#pragma once

#include <memory>
#include <string>

#include "bench/process.hpp"

namespace bench {

class Mount {
 public:
  // Starts `csdfs -f DEVICE DIR` on a new temporary directory. Mounted when this returns, at the latest
  // after ten seconds (ETIMEDOUT). EPROTO: csdfs ended, and has said why on stderr.
  static Result<std::unique_ptr<Mount>> start(const std::string& csdfs, const std::string& device);

  // Ends csdfs, unmounts what it left mounted, removes the directory.
  ~Mount();
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;

  const std::string& directory() const { return directory_; }
  pid_t pid() const { return csdfs_.pid(); }

 private:
  Mount(std::string directory, Child csdfs) : directory_(std::move(directory)), csdfs_(std::move(csdfs)) {}

  std::string directory_;
  Child csdfs_;
};

}  // namespace bench
