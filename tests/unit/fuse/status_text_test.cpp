// MOUNT/status, MOUNT/connections and MOUNT/published to the letter: scripts read them.
#include "fuse/status_text.hpp"

#include <gtest/gtest.h>

namespace csdfs {
namespace {

StatusReport status() {
  StatusReport report{.device = "emu:?relays=2",
                      .model = "Some drive",
                      .port = "in this process",
                      .dialect = "v2",
                      .dialect_reason = "the drive offers it",
                      .most_connections = 16384,
                      .files_open = 3};
  report.counters.streams_now = 4;
  report.counters.opens = 5;
  report.counters.open_failures = 6;
  report.counters.commands = 7;
  report.counters.in_flight_now = 8;
  report.counters.max_in_flight = 9;
  report.counters.abandoned_now = 10;
  report.counters.bytes_sent = 11;
  report.counters.bytes_received = 12;
  return report;
}

constexpr char host_lines[] =
    "device: emu:?relays=2\n"
    "model: Some drive\n"
    "port: in this process\n"
    "dialect: v2 (the drive offers it)\n"
    "connections at most: 16384\n"
    "connections in use: 4\n"
    "files open: 3\n"
    "opens: 5\n"
    "failed opens: 6\n"
    "commands: 7\n"
    "commands in flight: 8\n"
    "most commands in flight: 9\n"
    "abandoned commands: 10\n"
    "bytes to drive: 11\n"
    "bytes from drive: 12\n";

TEST(StatusText, a_drive_without_sessions_faults_and_counters_is_told_by_the_host_alone) {
  EXPECT_EQ(text_of(status()), std::string(host_lines) + "drive: has no counters\n");
}

TEST(StatusText, session_faults_and_the_drives_own_counters_follow) {
  StatusReport report = status();
  report.session = nvsock::SessionStatus{.link = "live", .resumed = 1, .lost = 2};
  report.faults = "seed 7";
  report.drive.counters.emplace();
  report.drive.counters->streams_now = 21;
  report.drive.counters->streams_opened = 22;
  report.drive.counters->opens_refused = 23;
  report.drive.counters->bytes_to_services = 24;
  report.drive.counters->bytes_from_services = 25;
  report.drive.counters->datagrams_dropped = 26;
  report.drive.counters->batches_repeated = 27;
  report.drive.counters->age_ms = 28999;
  report.drive.counters->lingering_bytes = 29;
  report.drive.counters->lingering_streams = 30;
  report.drive.counters->lingering_lost = 31;
  report.drive.counters->memory = 32;
  EXPECT_EQ(text_of(report), std::string(host_lines) +
                                 "session: live\n"
                                 "sessions resumed: 1\n"
                                 "sessions lost: 2\n"
                                 "faults: seed 7\n"
                                 "drive:\n"
                                 "  streams now: 21\n"
                                 "  streams opened: 22\n"
                                 "  streams refused: 23\n"
                                 "  bytes to services: 24\n"
                                 "  bytes from services: 25\n"
                                 "  datagrams dropped: 26\n"
                                 "  batches repeated: 27\n"
                                 "  session seconds: 28\n"
                                 "  bytes lingering: 29\n"
                                 "  streams lingering: 30\n"
                                 "  bytes lost lingering: 31\n"
                                 "  bytes of memory: 32\n");
}

TEST(StatusText, why_the_drive_tells_nothing_is_told) {
  using Why = DriveReport::Why;
  for (const auto& [why, sentence] : {std::pair{Why::has_none, "drive: has no counters\n"},
                                      {Why::not_now, "drive: does not answer now\n"},
                                      {Why::session_lost, "drive: the session was lost\n"},
                                      {Why::too_slow, "drive: did not answer within 1 s\n"}}) {
    StatusReport report = status();
    report.drive.why_none = why;
    EXPECT_EQ(text_of(report), std::string(host_lines) + sentence);
  }
}

TEST(StatusText, connections_are_a_table) {
  using State = ConnectionReport::State;
  const std::vector<ConnectionReport> connections = {
      {.id = 1,
       .state = State::open,
       .opener = 4711,
       .to_drive = 10,
       .from_drive = 20,
       .unsent = 30,
       .unread = 40,
       .address = "127.0.0.1:22"},
      {.id = 12,
       .state = State::half_closed,
       .opener = {},
       .address = "127.0.0.1:40000",
       .published = "127.0.0.1:8080"},
      {.id = 13, .state = State::closing, .opener = {}, .address = "udp/127.0.0.1:53", .published = ""}};
  EXPECT_EQ(
      text_of(connections),
      "    ID STATE               PID       TO-DRIVE     FROM-DRIVE     UNSENT     UNREAD  ADDRESS\n"
      "     1 open               4711             10             20         30         40  127.0.0.1:22\n"
      "    12 half-closed           -              0              0          0          0  "
      "127.0.0.1:40000 to 127.0.0.1:8080\n"
      "    13 closing               -              0              0          0          0  "
      "udp/127.0.0.1:53\n");
}

TEST(StatusText, published_ports_are_a_table) {
  PublicationReport port{.inside = "127.0.0.1:80",
                         .service = "127.0.0.1:8080",
                         .connections = 1,
                         .accepted = 2,
                         .failed = 3,
                         .to_drive = 4,
                         .from_drive = 5,
                         .listening = true};
  const std::string heading =
      "INSIDE                   ON-HOST                     NOW ACCEPTED   FAILED       TO-DRIVE     "
      "FROM-DRIVE  STATE\n";
  const std::string row =
      "127.0.0.1:80             127.0.0.1:8080                1        2        3              4         "
      "     5  ";
  EXPECT_EQ(text_of(std::vector{port}), heading + row + "listening\n");
  port.listening = false;
  EXPECT_EQ(text_of(std::vector{port}), heading + row + "asking\n");
  port.error = EADDRINUSE;
  EXPECT_EQ(text_of(std::vector{port}), heading + row + "Address already in use\n");
}

}  // namespace
}  // namespace csdfs
