// The TLS keys of a csd-target, as its options name them: one for all hosts, and those of single hosts, from
// files or from a directory with a file for each.
//
// Limit: 4096 hosts. Threads: any. Blocks for the disk.
#pragma once

#include <string>
#include <vector>

#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/tls_key.hpp"

namespace nvsock::csd {

// Each value is HOSTNQN=FILE, a directory or the FILE of a key for all; a host's own key is then the only one
// it can use. In a directory a file is named as its host is (nqn...), files that begin with a dot do not
// count, and others than root or this user must not be able to change it: a key under another name would be
// another host's.
Result<TlsKeys> load_host_keys(const std::vector<std::string>& values);

}  // namespace nvsock::csd
