// What MOUNT/status and MOUNT/connections say, for people and for grep.
#include <spdlog/fmt/fmt.h>

#include <map>

#include "fuse/filesystem.hpp"

namespace csdfs {
namespace {

using nvsock::Stream;

std::string_view state_name(const Stream& stream) {
  if (stream.state() == Stream::State::connecting) return "connecting";
  if (stream.broken()) return "failed";
  if (stream.receive_ended() && stream.send_ended()) return "ended";
  if (stream.receive_ended()) return "peer-ended";
  if (stream.send_ended()) return "half-closed";
  return "open";
}

}  // namespace

std::string status_text(const Filesystem& filesystem, const nvsock::Device& device) {
  const nvsock::DialectCounters& counters = device.counters();
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
      device.uri().text, device.model(), device.port(), device.dialect(), device.dialect_reason(),
      device.max_streams(), counters.streams_now, filesystem.connections().size(), counters.opens,
      counters.open_failures, counters.commands, counters.in_flight_now, counters.max_in_flight,
      counters.abandoned_now, counters.bytes_sent, counters.bytes_received);
  if (const auto session = device.session_status()) {
    text += fmt::format("session: {}\nsessions resumed: {}\nsessions lost: {}\n", session->link,
                        session->resumed, session->lost);
  }
  if (const std::string faults = device.faults_text(); !faults.empty()) {
    text += fmt::format("faults: {}\n", faults);
  }
  return text;
}

std::string connections_text(const Filesystem& filesystem, const nvsock::Device& device) {
  std::map<uint64_t, pid_t> openers;
  for (const Connection* connection : filesystem.connections()) {
    openers[connection->stream_id()] = connection->opener();
  }
  std::map<uint64_t, const Stream*> streams;  // by number, so that the newest is last
  device.for_each_stream([&](const Stream& stream) { streams[stream.id()] = &stream; });

  std::string text = fmt::format("{:>6} {:<12} {:>10} {:>14} {:>14} {:>10} {:>10}  {}\n", "ID", "STATE",
                                 "PID", "TO-DRIVE", "FROM-DRIVE", "UNSENT", "UNREAD", "ADDRESS");
  for (const auto& [id, stream] : streams) {
    const auto opener = openers.find(id);
    const nvsock::Endpoint* const published = filesystem.publisher().address_of(id);
    const bool ours = opener != openers.end() || published != nullptr;
    text += fmt::format("{:>6} {:<12} {:>10} {:>14} {:>14} {:>10} {:>10}  {}\n", id,
                        ours ? state_name(*stream) : "closing",
                        opener == openers.end() ? "-" : std::to_string(opener->second), stream->bytes_sent(),
                        stream->bytes_received(), stream->unsent(), stream->readable(),
                        (stream->is_datagram() ? stream->peer().path() : stream->peer().text()) +
                            (published != nullptr ? " to " + published->text() : ""));
  }
  return text;
}

}  // namespace csdfs
