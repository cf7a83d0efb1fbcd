#include "csd/target/subsystem.hpp"

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <utility>

#include "libnvsock/base/quoted.hpp"
#include "libnvsock/base/random_id.hpp"
#include "libnvsock/base/writable_wait.hpp"

namespace nvsock::csd {
namespace {

constexpr size_t controllers_for_all = 32;
constexpr size_t max_controllers = controllers_for_all + 8;  // the rest is for hosts that are known
// A machine needs one a mount, and one for discovery now and then; those that it has lost may not have ended
// yet.
constexpr size_t max_controllers_of_host = 8;
constexpr size_t max_controllers_of_origin = 16;
constexpr auto longest_idle = std::chrono::minutes(10);  // while the place is needed
constexpr uint16_t last_controller_id = 0xFFEF;          // those above are reserved
constexpr uint32_t sessions_for_all = 16;
constexpr uint32_t max_sessions = sessions_for_all + 4;
constexpr size_t max_sessions_of_host = 8;
constexpr size_t holders_named = 4;  // in the log
constexpr size_t large_kept = 64;
constexpr size_t small_kept = 64;
constexpr size_t staging_size = 64 * 1024;

// Figure 381, the result of a Connect with invalid parameters: where, and that it is in the data.
constexpr uint32_t in_data(uint32_t offset) {
  return offset | 1 << 16;
}

}  // namespace

Subsystem::Subsystem(asio::io_context& loop, Clock& clock, ServiceFactory& services, Namespace& storage,
                     SubsystemOptions options)
    : options_(std::move(options)),
      namespace_id_(uuid_of(options_.nqn)),
      large_(max_transfer, large_kept),
      small_(nvme_tcp::admin_capsule_data, small_kept),
      staging_(staging_size),
      clock_(clock),
      sessions_(clock, services, *this,
                {.epoch = random_id(),
                 .max_sessions = max_sessions,
                 .may_attach = [this](const HostName& host) { return may_attach(host); },
                 .lease = options_.lease,
                 .vendor = "nvsock csd-target"}),
      for_connections_{loop, clock, *this, large_, small_, staging_, options_.log},
      for_controllers_{*this,       clock,        *this,         sessions_,
                       storage,     options_.nqn, namespace_id_, options_.tls != nullptr,
                       options_.log} {
  WritableWait::prepare(loop);
}

Subsystem::~Subsystem() {
  while (!controllers_.empty()) controllers_.back()->end();
}

std::shared_ptr<NvmeConnection> Subsystem::add(int fd, Peer peer) {
  auto transport = options_.tls != nullptr ? options_.tls->over(fd) : make_plain_transport(fd);
  auto connection = std::make_shared<NvmeConnection>(for_connections_, fd, std::move(transport),
                                                     std::move(peer), static_cast<QueueExecutor&>(*this));
  connection->start();
  return connection;
}

// --- completions ---

void Subsystem::post(Command& command) {
  auto& request = static_cast<Request&>(command);
  // The drive tells how much of a batch is valid; nothing else needs to cross the network.
  if (request.opcode == relay_v2::opcode::to_host)
    request.reply = relay_v2::function_of(request) == relay_v2::function::rx ? request.completion.dw0
                                                                             : request.data_length;
  request.connection.respond(request);
  if (to_flush_.empty() || to_flush_.back().get() != &request.connection)
    to_flush_.push_back(request.connection.shared_from_this());
}

void Subsystem::flush() {
  while (!to_flush_.empty()) {
    for (const auto& connection : std::exchange(to_flush_, {})) connection->flush();
  }
}

void Subsystem::complete(Request& request, uint16_t status, uint32_t dw0) {
  request.completion = {.error = 0, .status = status, .dw0 = dw0};
  post(request);
}

// --- Connect ---

// A connection that has no queue yet.
void Subsystem::execute(Request& request) {
  if (request.opcode != nvme::opcode::fabrics || request.nsid != nvme::fabrics_type::connect)
    return complete(request, nvme::status::sequence_error, 0);
  connect(request);
}

void Subsystem::connect(Request& request) {
  if (request.data_length != nvme::connect_data_size)
    return complete(request, nvme::status::invalid_sgl_length, 0);
  const nvme::Connect connect = nvme::parse_connect(request);
  const nvme::ConnectData data = nvme::parse_connect_data(std::span<const uint8_t, nvme::connect_data_size>(
      static_cast<const uint8_t*>(request.data), nvme::connect_data_size));
  const auto invalid = [&](uint32_t where) {
    complete(request, nvme::status::connect_invalid_parameters, where);
  };
  if (connect.record_format != 0) return complete(request, nvme::status::connect_incompatible_format, 0);
  if (connect.queue > max_io_queues) return invalid(nvme::connect_offset::queue);
  if (connect.queue_size < 2 || connect.queue_size > max_queue_entries)
    return invalid(nvme::connect_offset::queue_size);
  if (data.subsystem != options_.nqn && data.subsystem != nvme::discovery_nqn)
    return invalid(in_data(nvme::connect_offset::subsystem));
  if (data.host.empty()) return invalid(in_data(nvme::connect_offset::host));
  const std::string_view proven = request.connection.proven_host();
  if (!proven.empty() && proven != data.host) {
    if (options_.log)
      options_.log(LogLevel::warning, request.connection.peer() + ": host " + quoted(proven) +
                                          ", by its TLS key, may not connect as " + quoted(data.host));
    return complete(request, nvme::status::connect_invalid_host, 0);
  }
  if (data.subsystem == options_.nqn && !allows(data.host)) {
    if (options_.log)
      options_.log(LogLevel::warning, request.connection.peer() + ": host " + quoted(data.host) +
                                          " may not connect (it is not among the --hostnqn)");
    return complete(request, nvme::status::connect_invalid_host, 0);
  }
  const uint16_t status =
      connect.queue == 0 ? connect_admin(request, connect, data) : connect_io(request, connect, data);
  if (status == nvme::status::connect_invalid_parameters)
    return invalid(in_data(nvme::connect_offset::controller));
  if (status != nvsock::status::success) return complete(request, status, 0);
  complete(request, status, connect.queue == 0 ? last_id_ : data.controller);
}

uint16_t Subsystem::connect_admin(Request& request, const nvme::Connect& connect,
                                  const nvme::ConnectData& data) {
  // Controllers are made for their hosts: there is none to be chosen.
  if (data.controller != nvme::any_controller) return nvme::status::connect_invalid_parameters;
  if (!make_place(request.connection, data.host)) return nvme::status::connect_controller_busy;
  do {
    last_id_ = last_id_ == last_controller_id ? 1 : static_cast<uint16_t>(last_id_ + 1);
  } while (std::ranges::any_of(controllers_, [&](const auto& used) { return used->id() == last_id_; }));
  controllers_.push_back(std::make_unique<Controller>(
      for_controllers_, last_id_, HostName{.id = data.host_id, .nqn = std::string(data.host)},
      data.subsystem == nvme::discovery_nqn));
  controllers_.back()->adopt_admin(request.connection, connect);
  if (options_.log)
    options_.log(LogLevel::info, request.connection.peer() + ": controller " + std::to_string(last_id_) +
                                     " for host " + quoted(data.host));
  return nvsock::status::success;
}

uint16_t Subsystem::connect_io(Request& request, const nvme::Connect& connect,
                               const nvme::ConnectData& data) {
  const auto found =
      std::ranges::find_if(controllers_, [&](const auto& used) { return used->id() == data.controller; });
  const HostName host{.id = data.host_id, .nqn = std::string(data.host)};
  if (found == controllers_.end() || (*found)->host() != host ||
      (*found)->discovery() != (data.subsystem == nvme::discovery_nqn))
    return nvme::status::connect_invalid_parameters;
  return (*found)->adopt_io(request.connection, connect);
}

// --- controllers ---

void Subsystem::ended(Controller& controller) {
  if (options_.log)
    options_.log(LogLevel::info, "controller " + std::to_string(controller.id()) + " of host " +
                                     quoted(controller.host().nqn) + " has ended");
  std::erase_if(controllers_, [&](const auto& held) { return held.get() == &controller; });
}

void Subsystem::disconnected(NvmeConnection& connection) {
  connection.release(static_cast<QueueExecutor&>(*this));
}

bool Subsystem::listed(std::string_view host_nqn) const {
  return std::ranges::find(options_.hosts, host_nqn) != options_.hosts.end();
}

bool Subsystem::allows(std::string_view host_nqn) const {
  return options_.hosts.empty() || listed(host_nqn);
}

// --- places ---

size_t Subsystem::sessions_of(std::string_view host_nqn) const {
  size_t count = 0;
  sessions_.for_each_host([&](const HostName& host) { count += host.nqn == host_nqn; });
  return count;
}

// Whether this host may have one controller more; false is logged, with who has the places.
bool Subsystem::make_place(const NvmeConnection& connection, std::string_view host_nqn) {
  const auto refuse = [&](const std::string& why) {
    if (options_.log)
      options_.log(LogLevel::warning, connection.peer() + ": host " + quoted(host_nqn) +
                                          " gets no controller, " + why + "; controllers: " + holders(false));
    return false;
  };
  const auto count = [&](const auto& whose) {
    return static_cast<size_t>(
        std::ranges::count_if(controllers_, [&](const auto& held) { return whose(*held); }));
  };
  const auto of_host = [&](const Controller& held) { return held.host().nqn == host_nqn; };
  const auto of_origin = [&](const Controller& held) {
    return held.origin() == connection.origin() && !listed(held.host().nqn);
  };
  // Where hosts are listed, others are here for discovery alone.
  const bool known =
      options_.hosts.empty() ? count(of_host) > 0 || sessions_of(host_nqn) > 0 : listed(host_nqn);
  const size_t places = known ? max_controllers : controllers_for_all;
  if (count(of_host) >= max_controllers_of_host && !end_idle(of_host))
    return refuse("it has " + std::to_string(max_controllers_of_host) + " already");
  if (!listed(host_nqn) && count(of_origin) >= max_controllers_of_origin && !end_idle(of_origin))
    return refuse(connection.origin() + " has " + std::to_string(max_controllers_of_origin) + " already");
  if (controllers_.size() >= places && !end_idle([](const Controller&) { return true; }))
    return refuse("the target is full");
  return true;
}

// Ends the one of these that has been idle for longest, if that is long enough.
bool Subsystem::end_idle(const std::function<bool(const Controller&)>& concerned) {
  Controller* idlest = nullptr;
  for (const auto& held : controllers_) {
    if (concerned(*held) && (idlest == nullptr || held->used() < idlest->used())) idlest = held.get();
  }
  if (idlest == nullptr || clock_.now() - idlest->used() < longest_idle) return false;
  if (options_.log)
    options_.log(LogLevel::warning, "controller " + std::to_string(idlest->id()) + " of host " +
                                        quoted(idlest->host().nqn) +
                                        " was idle for 10 minutes and makes room for another");
  idlest->end();
  return true;
}

bool Subsystem::may_attach(const HostName& host) const {
  // Having a controller makes nobody known: without one nobody is here.
  const size_t held = sessions_of(host.nqn);
  const uint32_t places = held > 0 || listed(host.nqn) ? max_sessions : sessions_for_all;
  const bool host_full = held >= max_sessions_of_host;
  if (!host_full && sessions_.sessions() < places) return true;
  if (options_.log)
    options_.log(LogLevel::warning,
                 "host " + quoted(host.nqn) + " gets no relay session, " +
                     (host_full ? "it has " + std::to_string(max_sessions_of_host) + " already"
                                : "the target is full") +
                     "; relay sessions: " + holders(true));
  return false;
}

// Who has how many, those with the most first: 8 of "a", 7 of "b".
std::string Subsystem::holders(bool of_sessions) const {
  std::map<std::string, size_t> counts;
  if (of_sessions) {
    sessions_.for_each_host([&](const HostName& host) { ++counts[host.nqn]; });
  } else {
    for (const auto& held : controllers_) ++counts[held->host().nqn];
  }
  std::vector<std::pair<std::string, size_t>> hosts(counts.begin(), counts.end());
  std::ranges::stable_sort(hosts, std::ranges::greater(), &std::pair<std::string, size_t>::second);
  std::string text;
  for (size_t i = 0; i < std::min(hosts.size(), holders_named); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(hosts[i].second) + " of " + quoted(hosts[i].first);
  if (hosts.size() > holders_named)
    text += " and those of " + std::to_string(hosts.size() - holders_named) + " others";
  return text.empty() ? "none" : text;
}

}  // namespace nvsock::csd
