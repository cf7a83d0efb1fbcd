// What MOUNT/status, MOUNT/connections, MOUNT/published and MOUNT/forwards say, as data: collected here,
// written by others (status_text.hpp).
//
// How a field is added: a member here, the line in status_report.cpp that fills it in, and one in each
// writer. csdfs(8) names those that people look for. A writer knows these structs and nothing of drives.
// Threads: event loop only. Nothing blocks.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libnvsock/device.hpp"
#include "libnvsock/forward/forward.hpp"

namespace csdfs {

class MountedDrive;

// What the drive itself has counted in its session; or why it is not known.
struct DriveReport {
  enum class Why : uint8_t {
    has_none,      // drives of the first generation count nothing
    not_now,       // there is no session to ask in
    session_lost,  // it ended before the drive answered
    too_slow,      // no answer within a second
  };
  nvsock::DriveCounters counters;
  Why why_none = Why::has_none;  // without counters
};

struct StatusReport {
  std::string device;  // as the command line named it
  std::string model;   // Identify Controller
  std::string port;    // how commands get there
  std::string dialect;
  std::string dialect_reason;  // what decided it
  unsigned most_connections = 0;
  size_t files_open = 0;                           // connections, those being opened included
  nvsock::DialectCounters counters{};              // the host's
  std::optional<nvsock::SessionStatus> session{};  // none: the dialect has no sessions
  std::string faults{};                            // made on purpose; empty: none
  DriveReport drive{};
};

// A stream of the drive.
struct ConnectionReport {
  enum class State : uint8_t {
    connecting,
    open,
    half_closed,  // this end sends no more
    peer_ended,   // the service sends no more
    ended,        // both
    failed,
    closing,  // no file holds it any more: the rest is on its way
  };
  uint64_t id = 0;
  State state = State::open;
  std::optional<pid_t> opener{};  // none: it is closing, or no program's: published or forwarded
  uint64_t to_drive = 0;          // bytes
  uint64_t from_drive = 0;
  size_t unsent = 0;  // accepted from programs, and not yet the drive's
  size_t unread = 0;  // from the drive, and no program's yet
  std::string address;
  std::string published{};  // the address inside it came to; empty: it came through none
  std::string client{};     // of the host's that came by a forward; empty: it did not
};

struct PublicationReport {
  std::string inside;
  std::string service;
  size_t connections = 0;  // now
  uint64_t accepted = 0;   // since it was published, as all that follow
  uint64_t failed = 0;
  uint64_t to_drive = 0;  // bytes
  uint64_t from_drive = 0;
  bool listening = false;
  int error = 0;  // why not; 0: the drive has not answered
};

struct ForwardReport {
  std::string name;       // see nvsock::ForwardSpec
  std::string listening;  // addresses of the host
  std::string inside;
  nvsock::Forward::Counters counters;
};

StatusReport report_status(const MountedDrive& drive, const DriveReport& told);
// In the order of their numbers, so that the newest is last. Of one user's, those that a program holds open
// or that came through a port the user published; or all.
std::vector<ConnectionReport> report_connections(const MountedDrive& drive, std::optional<uid_t> only);
// Publications: Publisher::report(). Forwards: Forwarder::report().

}  // namespace csdfs
