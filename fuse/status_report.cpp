#include "fuse/status_report.hpp"

#include <algorithm>
#include <unordered_map>

#include "fuse/connection.hpp"
#include "fuse/mounted_drive.hpp"

namespace csdfs {
namespace {

using State = ConnectionReport::State;
using nvsock::Stream;

State state_of(const Stream& stream) {
  if (stream.state() == Stream::State::connecting) return State::connecting;
  if (stream.broken()) return State::failed;
  if (stream.receive_ended() && stream.send_ended()) return State::ended;
  if (stream.receive_ended()) return State::peer_ended;
  if (stream.send_ended()) return State::half_closed;
  return State::open;
}

}  // namespace

StatusReport report_status(const MountedDrive& drive, const DriveReport& told) {
  const nvsock::Device& device = drive.device();
  return {.device = device.uri().text,
          .model = device.model(),
          .port = device.port(),
          .dialect = std::string(device.dialect()),
          .dialect_reason = device.dialect_reason(),
          .most_connections = device.max_streams(),
          .files_open = drive.connections().size(),
          .counters = device.counters(),
          .session = device.session_status(),
          .faults = device.faults_text(),
          .drive = told};
}

std::vector<ConnectionReport> report_connections(const MountedDrive& drive, std::optional<uid_t> only) {
  std::unordered_map<uint64_t, const Connection*> openers;
  for (const Connection* connection : drive.connections()) openers[connection->stream_id()] = connection;
  std::vector<ConnectionReport> reports;
  drive.device().for_each_stream([&](const Stream& stream) {
    const auto opener = openers.find(stream.id());
    const Publication* const published = drive.publisher().find(stream.id());
    const std::string* const client = drive.forwarder().client_of(stream.id());
    const bool held = opener != openers.end() || published != nullptr || client != nullptr;
    if (only) {
      const bool own = opener != openers.end() ? opener->second->opener_user() == *only
                                               : published != nullptr && published->owner == *only;
      if (!own) return;
    }
    ConnectionReport& report = reports.emplace_back();
    report.id = stream.id();
    report.state = held ? state_of(stream) : State::closing;
    if (opener != openers.end()) report.opener = opener->second->opener();
    report.to_drive = stream.bytes_sent();
    report.from_drive = stream.bytes_received();
    report.unsent = stream.unsent();
    report.unread = stream.readable();
    report.address = stream.is_datagram() ? stream.peer().path() : stream.peer().text();
    if (published != nullptr) report.published = published->inside.text();
    if (client != nullptr) report.client = *client;
  });
  std::sort(reports.begin(), reports.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  return reports;
}

}  // namespace csdfs
