// The reports as text, for people and for grep: "name: value" lines, and tables with a heading.
//
// Scripts read them, so a line once here stays as it is; new ones are added. Threads: any.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fuse/status_report.hpp"

namespace csdfs {

// One word, and half a sentence behind the drive.
std::string_view name_of(ConnectionReport::State state);
std::string_view sentence_of(DriveReport::Why why);

std::string text_of(const StatusReport& report);
std::string text_of(const std::vector<ConnectionReport>& connections);
std::string text_of(const std::vector<PublicationReport>& publications);
std::string text_of(const std::vector<ForwardReport>& forwards);

}  // namespace csdfs
