#include "fuse/status_text.hpp"

#include <spdlog/fmt/fmt.h>

#include <cstring>

namespace csdfs {

std::string_view name_of(ConnectionReport::State state) {
  switch (state) {
    using enum ConnectionReport::State;
    case connecting:
      return "connecting";
    case open:
      return "open";
    case half_closed:
      return "half-closed";
    case peer_ended:
      return "peer-ended";
    case ended:
      return "ended";
    case failed:
      return "failed";
    case closing:
      return "closing";
  }
  return "?";
}

std::string_view sentence_of(DriveReport::Why why) {
  switch (why) {
    using enum DriveReport::Why;
    case has_none:
      return "has no counters";
    case not_now:
      return "does not answer now";
    case session_lost:
      return "the session was lost";
    case too_slow:
      return "did not answer within 1 s";
  }
  return "?";
}

namespace {

std::string text_of(const DriveReport& drive) {
  if (!drive.counters) return fmt::format("drive: {}\n", sentence_of(drive.why_none));
  return fmt::format(
      "drive:\n"
      "  streams now: {}\n"
      "  streams opened: {}\n"
      "  streams refused: {}\n"
      "  bytes to services: {}\n"
      "  bytes from services: {}\n"
      "  datagrams dropped: {}\n"
      "  batches repeated: {}\n"
      "  session seconds: {}\n"
      "  bytes lingering: {}\n"
      "  streams lingering: {}\n"
      "  bytes lost lingering: {}\n"
      "  bytes of memory: {}\n",
      drive.counters->streams_now, drive.counters->streams_opened, drive.counters->opens_refused,
      drive.counters->bytes_to_services, drive.counters->bytes_from_services,
      drive.counters->datagrams_dropped, drive.counters->batches_repeated, drive.counters->age_ms / 1000,
      drive.counters->lingering_bytes, drive.counters->lingering_streams, drive.counters->lingering_lost,
      drive.counters->memory);
}

}  // namespace

std::string text_of(const StatusReport& report) {
  std::string text = fmt::format(
      "device: {}\n"
      "model: {}\n"
      "port: {}\n"
      "dialect: {} ({})\n"
      "connections at most: {}\n"
      "connections in use: {}\n"
      "files open: {}\n"
      "opens: {}\n"
      "failed opens: {}\n"
      "commands: {}\n"
      "commands in flight: {}\n"
      "most commands in flight: {}\n"
      "abandoned commands: {}\n"
      "bytes to drive: {}\n"
      "bytes from drive: {}\n",
      report.device, report.model, report.port, report.dialect, report.dialect_reason,
      report.most_connections, report.counters.streams_now, report.files_open, report.counters.opens,
      report.counters.open_failures, report.counters.commands, report.counters.in_flight_now,
      report.counters.max_in_flight, report.counters.abandoned_now, report.counters.bytes_sent,
      report.counters.bytes_received);
  if (report.session) {
    text += fmt::format("session: {}\nsessions resumed: {}\nsessions lost: {}\n", report.session->link,
                        report.session->resumed, report.session->lost);
  }
  if (!report.faults.empty()) text += fmt::format("faults: {}\n", report.faults);
  return text + text_of(report.drive);
}

std::string text_of(const std::vector<ConnectionReport>& connections) {
  std::string text = fmt::format("{:>6} {:<12} {:>10} {:>14} {:>14} {:>10} {:>10}  {}\n", "ID", "STATE",
                                 "PID", "TO-DRIVE", "FROM-DRIVE", "UNSENT", "UNREAD", "ADDRESS");
  for (const ConnectionReport& connection : connections) {
    text += fmt::format("{:>6} {:<12} {:>10} {:>14} {:>14} {:>10} {:>10}  {}{}{}\n", connection.id,
                        name_of(connection.state),
                        connection.opener ? std::to_string(*connection.opener) : "-", connection.to_drive,
                        connection.from_drive, connection.unsent, connection.unread, connection.address,
                        !connection.published.empty() ? " to "
                        : !connection.client.empty()  ? " from "
                                                      : "",
                        connection.published.empty() ? connection.client : connection.published);
  }
  return text;
}

std::string text_of(const std::vector<PublicationReport>& publications) {
  std::string text = fmt::format("{:<24} {:<24} {:>6} {:>8} {:>8} {:>14} {:>14}  {}\n", "INSIDE", "ON-HOST",
                                 "NOW", "ACCEPTED", "FAILED", "TO-DRIVE", "FROM-DRIVE", "STATE");
  for (const PublicationReport& published : publications) {
    text += fmt::format("{:<24} {:<24} {:>6} {:>8} {:>8} {:>14} {:>14}  {}\n", published.inside,
                        published.service, published.connections, published.accepted, published.failed,
                        published.to_drive, published.from_drive,
                        published.listening    ? "listening"
                        : published.error == 0 ? "asking"
                                               : std::strerror(published.error));
  }
  return text;
}

std::string text_of(const std::vector<ForwardReport>& forwards) {
  std::string text = fmt::format("{:<24} {:<24} {:>6} {:>8} {:>8} {:>14} {:>14}  {}\n", "ON-HOST", "INSIDE",
                                 "NOW", "ACCEPTED", "FAILED", "TO-DRIVE", "FROM-DRIVE", "LISTENING");
  for (const ForwardReport& forward : forwards) {
    text += fmt::format("{:<24} {:<24} {:>6} {:>8} {:>8} {:>14} {:>14}  {}\n", forward.name, forward.inside,
                        forward.counters.connections, forward.counters.accepted, forward.counters.failed,
                        forward.counters.to_drive, forward.counters.from_drive, forward.listening);
  }
  return text;
}

}  // namespace csdfs
