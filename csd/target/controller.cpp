#include "csd/target/controller.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "libnvsock/base/quoted.hpp"

namespace nvsock::csd {
namespace {

// Figure 36: MQES, CQR, TO of 7.5 s, CSS: the NVM command set.
constexpr uint64_t capabilities =
    uint64_t{max_queue_entries - 1} | uint64_t{1} << 16 | uint64_t{15} << 24 | uint64_t{1} << 37;
// Command set, page size and arbitration: the only ones are 0.
constexpr uint32_t configuration_zeros = 7 << 4 | 15 << 7 | 7 << 11;
constexpr uint32_t max_async_requests = 4;  // AERL
constexpr uint32_t all_namespaces = 0xFFFFFFFF;

namespace cns {
constexpr uint32_t identify_namespace = 0x00, identify_controller = 0x01, active_namespaces = 0x02,
                   namespace_descriptors = 0x03, command_set_controller = 0x06;
}
namespace log_page {
constexpr uint32_t error = 0x01, health = 0x02, firmware = 0x03, effects = 0x05, discovery = 0x70;
}
namespace feature_id {
constexpr uint32_t write_cache = 0x06, queues = 0x07, async_events = 0x0B, keep_alive = 0x0F;
}

constexpr uint32_t queues_granted = (max_io_queues - 1) | (max_io_queues - 1) << 16;
constexpr uint32_t force_unit_access = 1 << 30;

std::span<uint8_t> data_of(Request& request) {
  return {static_cast<uint8_t*>(request.data), request.data_length};
}

}  // namespace

Controller::Controller(const Surroundings& around, uint16_t id, HostName host, bool discovery)
    : around_(around),
      id_(id),
      host_(std::move(host)),
      discovery_(discovery),
      queues_(1 + max_io_queues),
      timer_(around.clock.make_timer()) {}

void Controller::complete(Request& request, uint16_t status, uint32_t dw0) {
  request.completion = {.error = 0, .status = status, .dw0 = dw0};
  around_.completions.post(request);
}

// --- queues ---

void Controller::adopt_admin(NvmeConnection& connection, const nvme::Connect& connect) {
  queues_[0] = &connection;
  connection.adopt(*this, 0, connect.queue_size);
  keep_alive_ = std::chrono::milliseconds(connect.keep_alive_ms);
  heard(true);
  check_keep_alive();
}

uint16_t Controller::adopt_io(NvmeConnection& connection, const nvme::Connect& connect) {
  if (discovery_ || (status_ & nvme::csts::ready) == 0 || queues_[connect.queue] != nullptr)
    return nvme::status::sequence_error;
  queues_[connect.queue] = &connection;
  connection.adopt(*this, connect.queue, connect.queue_size);
  return status::success;
}

void Controller::forget(NvmeConnection& connection) {
  around_.sessions.forget_commands([&](const Command& command) {
    return &static_cast<const Request&>(command).connection == &connection;
  });
}

void Controller::closed(NvmeConnection& connection) {
  forget(connection);
  const auto queue = std::ranges::find(queues_, &connection);
  if (queue == queues_.end()) return;  // after Disconnect
  *queue = nullptr;
  if (queue == queues_.begin()) end();
}

void Controller::end() {
  if (std::exchange(ended_, true)) return;
  timer_->disarm();
  for (NvmeConnection*& queue : queues_) {
    if (NvmeConnection* const connection = std::exchange(queue, nullptr)) connection->close();
  }
  around_.owner.ended(*this);
}

// --- keep-alive ---

void Controller::heard(bool admin) {
  used_ = around_.clock.now();
  if (admin) heard_ = used_;
}

// The timer is not moved with each command: it fires early, looks, and is armed anew.
void Controller::check_keep_alive() {
  if (keep_alive_.count() == 0) return timer_->disarm();
  const Clock::TimePoint end_of_patience = heard_ + keep_alive_;
  if (around_.clock.now() < end_of_patience)
    return timer_->arm(end_of_patience - around_.clock.now(), [this] { check_keep_alive(); });
  if (around_.log)
    around_.log(LogLevel::warning, quoted(host_.nqn) + ": not heard for its keep-alive timeout of " +
                                       std::to_string(keep_alive_.count()) + " ms");
  end();
}

// --- commands ---

void Controller::execute(Request& request) {
  heard(request.connection.queue() == 0);
  if (request.opcode == nvme::opcode::fabrics) return execute_fabrics(request);
  if ((status_ & nvme::csts::ready) == 0) return complete(request, nvme::status::sequence_error);
  if (request.connection.queue() == 0) return execute_admin(request);
  execute_io(request);
}

void Controller::execute_fabrics(Request& request) {
  const bool admin = request.connection.queue() == 0;
  const auto property = nvme::parse_property(request);
  if (admin && request.nsid == nvme::fabrics_type::property_get && property)
    return get_property(request, *property);
  if (admin && request.nsid == nvme::fabrics_type::property_set && property)
    return set_property(request, *property);
  if (!admin && request.nsid == nvme::fabrics_type::disconnect) {
    // The host closes the connection; from now on there may be another one for the queue.
    queues_[request.connection.queue()] = nullptr;
    around_.owner.disconnected(request.connection);
    return complete(request, status::success);
  }
  complete(request, request.nsid == nvme::fabrics_type::connect ? nvme::status::sequence_error
                                                                : status::invalid_field);
}

void Controller::get_property(Request& request, const nvme::Property& property) {
  if (property.wide && property.offset == nvme::property::cap) {
    request.result_high = static_cast<uint32_t>(capabilities >> 32);
    return complete(request, status::success, static_cast<uint32_t>(capabilities));
  }
  if (property.wide) return complete(request, status::invalid_field);
  switch (property.offset) {
    case nvme::property::vs:
      return complete(request, status::success, nvme::version);
    case nvme::property::cc:
      return complete(request, status::success, configuration_);
    case nvme::property::csts:
      return complete(request, status::success, status_);
    default:
      return complete(request, status::invalid_field);
  }
}

void Controller::set_property(Request& request, const nvme::Property& property) {
  if (property.wide || property.offset != nvme::property::cc) return complete(request, status::invalid_field);
  configure(static_cast<uint32_t>(property.value));
  complete(request, status::success);
}

void Controller::configure(uint32_t value) {
  const bool was_enabled = (configuration_ & nvme::cc::enable) != 0;
  configuration_ = value;
  if ((value & nvme::cc::enable) == 0) {
    status_ = 0;
    // The commands of the host are over with the controller; those on the way are for nobody.
    if (was_enabled) forget(*queues_[0]);
  } else if ((value & configuration_zeros) != 0) {
    status_ = nvme::csts::fatal;
  } else if (!was_enabled) {
    status_ = nvme::csts::ready;
  }
  // There is nothing to shut down.
  if ((value & nvme::cc::shutdown_mask) != 0) status_ |= nvme::csts::shutdown_complete;
}

void Controller::execute_admin(Request& request) {
  if (request.opcode >= relay_v2::opcode::no_data) return execute_relay(request);
  switch (request.opcode) {
    case nvme::opcode::identify:
      return identify(request);
    case nvme::opcode::get_log_page:
      return get_log_page(request);
    case nvme::opcode::set_features:
      return set_features(request);
    case nvme::opcode::get_features:
      return get_features(request);
    case nvme::opcode::keep_alive:
      return complete(request, status::success);
    case nvme::opcode::abort:
      return complete(request, status::success, 1);  // was not aborted
    case nvme::opcode::async_event_request:
      // Nothing happens that would have to be told: it waits for as long as the association lasts.
      if (async_requests_ == max_async_requests)
        return complete(request, nvme::status::async_event_limit_exceeded);
      ++async_requests_;
      return;
    default:
      return complete(request, status::invalid_opcode);
  }
}

void Controller::execute_relay(Request& request) {
  if (discovery_ || !SessionTable::handles(request)) return complete(request, status::invalid_opcode);
  around_.sessions.execute(request, host_);
}

// --- Identify and log pages ---

void Controller::identify(Request& request) {
  if (request.data_length < identify_size) return complete(request, status::invalid_field);
  const auto page = data_of(request).first(identify_size);
  std::ranges::fill(page, 0);
  const uint32_t which = request.cdw10 & 0xff;
  const uint32_t command_set = request.cdw11 >> 24;
  const bool ours = request.nsid == 1;
  if (which == cns::identify_controller) {
    write_identify_controller({.nqn = around_.nqn,
                               .controller = id_,
                               .max_entries = max_queue_entries,
                               .discovery = discovery_,
                               .write_cache = around_.storage.persistent()},
                              page);
  } else if (discovery_) {
    return complete(request, status::invalid_field);
  } else if (which == cns::active_namespaces) {
    if (request.nsid >= all_namespaces - 1) return complete(request, nvme::status::invalid_namespace);
    if (request.nsid == 0) store_le<uint32_t>(page.data(), 1);
  } else if (which == cns::identify_namespace) {
    // All namespaces have the same format, and one that does not exist is told as zeros.
    if (request.nsid == 0 || (request.nsid > 1 && request.nsid != all_namespaces))
      return complete(request, nvme::status::invalid_namespace);
    write_identify_namespace(ours ? around_.storage.blocks() : 0, Namespace::block_size,
                             ours ? around_.namespace_id : Uuid{}, page);
  } else if (which == cns::namespace_descriptors) {
    if (!ours) return complete(request, nvme::status::invalid_namespace);
    write_namespace_descriptors(around_.namespace_id, page);
  } else if (which != cns::command_set_controller || command_set != 0) {
    return complete(request, status::invalid_field);
  }
  request.reply = identify_size;
  complete(request, status::success);
}

void Controller::get_log_page(Request& request) {
  std::array<uint8_t, std::max(discovery_log_size, effects_log_size)> page{};
  uint32_t size = 0;
  switch (request.cdw10 & 0xff) {
    case log_page::discovery:
      if (!discovery_) break;
      write_discovery_log(around_.nqn, request.connection.local(), around_.owner.allows(host_.nqn),
                          around_.tls, page);
      size = discovery_log_size;
      break;
    case log_page::error:
    case log_page::firmware:
      size = health_log_size;  // zeros: no errors; slot 0
      break;
    case log_page::health:
      write_health_log(page);
      size = health_log_size;
      break;
    case log_page::effects:
      if (discovery_ || request.cdw14 >> 24 != 0) break;  // of the NVM command set alone
      write_effects_log(page);
      size = effects_log_size;
      break;
    default:
      break;
  }
  if (size == 0) return complete(request, nvme::status::invalid_log_page);
  const uint64_t wanted = (uint64_t{request.cdw10 >> 16 | (request.cdw11 & 0xffff) << 16} + 1) * 4;
  const uint64_t offset = request.cdw12 | uint64_t{request.cdw13} << 32;
  if (wanted > request.data_length || offset > size || offset % 4 != 0)
    return complete(request, status::invalid_field);
  const auto into = data_of(request).first(wanted);
  std::ranges::fill(into, 0);
  std::copy_n(page.begin() + static_cast<std::ptrdiff_t>(offset), std::min<uint64_t>(wanted, size - offset),
              into.begin());
  request.reply = static_cast<uint32_t>(wanted);
  complete(request, status::success);
}

// --- features ---

void Controller::set_features(Request& request) {
  switch (request.cdw10 & 0xff) {
    case feature_id::queues:
      return complete(request, status::success, queues_granted);
    case feature_id::async_events:
      async_events_ = request.cdw11;
      return complete(request, status::success);
    case feature_id::keep_alive:
      keep_alive_ = std::chrono::milliseconds(request.cdw11);
      check_keep_alive();
      return complete(request, status::success);
    case feature_id::write_cache:
      return complete(request, nvme::status::feature_not_changeable);
    default:
      return complete(request, status::invalid_field);
  }
}

void Controller::get_features(Request& request) {
  switch (request.cdw10 & 0xff) {
    case feature_id::queues:
      return complete(request, status::success, queues_granted);
    case feature_id::async_events:
      return complete(request, status::success, async_events_);
    case feature_id::keep_alive:
      return complete(request, status::success, static_cast<uint32_t>(keep_alive_.count()));
    case feature_id::write_cache:
      return complete(request, status::success, around_.storage.persistent() ? 1 : 0);
    default:
      return complete(request, status::invalid_field);
  }
}

// --- the namespace ---

void Controller::execute_io(Request& request) {
  switch (request.opcode) {
    case nvme::opcode::read:
    case nvme::opcode::write:
      return read_or_write(request);
    case nvme::opcode::flush:
      if (request.nsid != 1 && request.nsid != all_namespaces)
        return complete(request, nvme::status::invalid_namespace);
      return flush(request);
    default:
      return complete(request, status::invalid_opcode);
  }
}

void Controller::read_or_write(Request& request) {
  const uint64_t first = request.cdw10 | uint64_t{request.cdw11} << 32;
  const uint32_t count = (request.cdw12 & 0xffff) + 1;
  if (request.nsid != 1) return complete(request, nvme::status::invalid_namespace);
  if (first > around_.storage.blocks() || count > around_.storage.blocks() - first)
    return complete(request, nvme::status::lba_out_of_range);
  const std::span<uint8_t> blocks = around_.storage.at(first, count);
  if (request.data_length != blocks.size()) return complete(request, nvme::status::invalid_sgl_length);
  if (request.opcode == nvme::opcode::read) {
    std::memcpy(request.data, blocks.data(), blocks.size());
    request.reply = request.data_length;
    return complete(request, status::success);
  }
  std::memcpy(blocks.data(), request.data, blocks.size());
  if ((request.cdw12 & force_unit_access) != 0) return flush(request);
  complete(request, status::success);
}

// Controller and target may be gone when the flush is done, the connection is not.
void Controller::flush(Request& request) {
  around_.storage.flush([&request, connection = request.connection.shared_from_this(),
                         &completions = around_.completions](int error) {
    request.completion = {
        .error = 0, .status = error == 0 ? status::success : nvme::status::write_fault, .dw0 = 0};
    completions.post(request);
    completions.flush();
  });
}

}  // namespace nvsock::csd
