#include "fuse/status_json.hpp"

#include <cstring>
#include <nlohmann/json.hpp>

#include "fuse/status_text.hpp"

namespace csdfs {
namespace {

// In the order they are written in.
using Json = nlohmann::ordered_json;

constexpr int format = 1;

std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json json_of(const nvsock::DriveCounters::value_type& counters) {
  return {{"streams_now", counters.streams_now},
          {"streams_opened", counters.streams_opened},
          {"streams_refused", counters.opens_refused},
          {"bytes_to_services", counters.bytes_to_services},
          {"bytes_from_services", counters.bytes_from_services},
          {"datagrams_dropped", counters.datagrams_dropped},
          {"batches_repeated", counters.batches_repeated},
          {"session_ms", counters.age_ms},
          {"lingering_bytes", counters.lingering_bytes},
          {"lingering_streams", counters.lingering_streams},
          {"lingering_bytes_lost", counters.lingering_lost},
          {"memory_bytes", counters.memory}};
}

Json json_of(const PublicationReport& published) {
  return {{"inside", published.inside},
          {"service", published.service},
          {"listening", published.listening},
          {"error", published.error != 0 ? Json(std::strerror(published.error)) : Json()},
          {"connections", published.connections},
          {"accepted", published.accepted},
          {"failed", published.failed},
          {"bytes_to_drive", published.to_drive},
          {"bytes_from_drive", published.from_drive}};
}

Json json_of(const ForwardReport& forward) {
  return {{"name", forward.name},
          {"listening", forward.listening},
          {"inside", forward.inside},
          {"connections", forward.counters.connections},
          {"accepted", forward.counters.accepted},
          {"failed", forward.counters.failed},
          {"bytes_to_drive", forward.counters.to_drive},
          {"bytes_from_drive", forward.counters.from_drive}};
}

Json json_of(const ConnectionReport& connection) {
  return {{"id", connection.id},
          {"state", name_of(connection.state)},
          {"pid", connection.opener ? Json(*connection.opener) : Json()},
          {"address", connection.address},
          {"published", connection.published.empty() ? Json() : Json(connection.published)},
          {"client", connection.client.empty() ? Json() : Json(connection.client)},
          {"bytes_to_drive", connection.to_drive},
          {"bytes_from_drive", connection.from_drive},
          {"bytes_unsent", connection.unsent},
          {"bytes_unread", connection.unread}};
}

template <typename Report>
Json list_of(const std::vector<Report>& reports) {
  Json list = Json::array();
  for (const Report& report : reports) list.push_back(json_of(report));
  return list;
}

}  // namespace

std::string json_of(const StatusReport& report, const std::vector<ForwardReport>& forwards,
                    const std::vector<PublicationReport>& publications) {
  Json json{{"format", format},
            {"device", report.device},
            {"model", report.model},
            {"port", report.port},
            {"dialect", report.dialect},
            {"dialect_reason", report.dialect_reason},
            {"connections",
             {{"now", report.counters.streams_now},
              {"at_most", report.most_connections},
              {"files_open", report.files_open},
              {"opens", report.counters.opens},
              {"failed_opens", report.counters.open_failures}}},
            {"commands",
             {{"sent", report.counters.commands},
              {"in_flight", report.counters.in_flight_now},
              {"most_in_flight", report.counters.max_in_flight},
              {"abandoned", report.counters.abandoned_now}}},
            {"bytes_to_drive", report.counters.bytes_sent},
            {"bytes_from_drive", report.counters.bytes_received},
            {"session", nullptr},
            {"faults", report.faults.empty() ? Json() : Json(report.faults)},
            {"drive", report.drive.counters ? json_of(*report.drive.counters) : Json()},
            {"drive_unknown", report.drive.counters ? Json() : Json(sentence_of(report.drive.why_none))},
            {"forwards", list_of(forwards)},
            {"published", list_of(publications)}};
  if (report.session) {
    json["session"] = {{"state", report.session->link},
                       {"resumed", report.session->resumed},
                       {"lost", report.session->lost}};
  }
  return dump(json);
}

std::string json_of(const std::vector<ConnectionReport>& connections) {
  return dump({{"format", format}, {"connections", list_of(connections)}});
}

}  // namespace csdfs
