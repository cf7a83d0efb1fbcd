#include "csd/target/subsystem.hpp"

#include <algorithm>
#include <utility>

#include "libnvsock/base/quoted.hpp"
#include "libnvsock/base/random_id.hpp"
#include "libnvsock/base/writable_wait.hpp"

namespace nvsock::csd {
namespace {

constexpr size_t max_controllers = 32;
constexpr uint16_t last_controller_id = 0xFFEF;  // those above are reserved
constexpr uint32_t max_sessions = 16;            // hosts that have a relay session
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
      sessions_(clock, services, *this,
                {.epoch = random_id(),
                 .max_sessions = max_sessions,
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

std::shared_ptr<NvmeConnection> Subsystem::add(int fd, std::string peer) {
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
    request.reply = request.cdw10 == relay_v2::function::rx ? request.completion.dw0 : request.cdw12;
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
  if (controllers_.size() >= max_controllers) return nvme::status::connect_controller_busy;
  do {
    last_id_ = last_id_ == last_controller_id ? 1 : static_cast<uint16_t>(last_id_ + 1);
  } while (std::ranges::any_of(controllers_, [&](const auto& used) { return used->id() == last_id_; }));
  controllers_.push_back(std::make_unique<Controller>(
      for_controllers_, last_id_, Controller::Host{.id = data.host_id, .nqn = std::string(data.host)},
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
  const Controller::Host host{.id = data.host_id, .nqn = std::string(data.host)};
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

bool Subsystem::allows(std::string_view host_nqn) const {
  return options_.hosts.empty() || std::ranges::find(options_.hosts, host_nqn) != options_.hosts.end();
}

}  // namespace nvsock::csd
