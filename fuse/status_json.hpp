// The reports as JSON, for programs; docs/json.md names the fields. A field once here stays as it is, new
// ones are added, and `format` changes only when that cannot be kept.
//
// Text from outside that is no UTF-8 has its bad bytes replaced. Threads: any.
#pragma once

#include <string>
#include <vector>

#include "fuse/status_report.hpp"

namespace csdfs {

std::string json_of(const StatusReport& report, const std::vector<ForwardReport>& forwards,
                    const std::vector<PublicationReport>& publications);
std::string json_of(const std::vector<ConnectionReport>& connections);

}  // namespace csdfs
