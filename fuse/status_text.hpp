// The reports as text, for people and for grep: "name: value" lines, and tables with a heading.
//
// Scripts read them, so a line once here stays as it is; new ones are added. Threads: any.
#pragma once

#include <string>
#include <vector>

#include "fuse/status_report.hpp"

namespace csdfs {

std::string text_of(const StatusReport& report);
std::string text_of(const std::vector<ConnectionReport>& connections);
std::string text_of(const std::vector<PublicationReport>& publications);
std::string text_of(const std::vector<ForwardReport>& forwards);

}  // namespace csdfs
