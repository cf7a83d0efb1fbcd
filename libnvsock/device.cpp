#include "libnvsock/device.hpp"

#include <algorithm>

#include "libnvsock/base/random_id.hpp"
#include "libnvsock/base/writable_wait.hpp"
#include "libnvsock/host/dialect_v1.hpp"
#include "libnvsock/host/dialect_v2.hpp"
#include "libnvsock/host/probe.hpp"
#include "libnvsock/port/emulated_port.hpp"
#include "libnvsock/port/nvme_tcp_port.hpp"
#include "libnvsock/port/passthrough_port.hpp"

namespace nvsock {
namespace {

// One overload for each kind of address.
struct PortOpener {
  asio::io_context& loop;
  const Log& log;

  using Opened = Result<std::unique_ptr<CommandPort>>;
  Opened operator()(const EmulatedAddress& address) const { return open_emulated_port(loop, address); }
  Opened operator()(const ControllerAddress& address) const {
    return open_passthrough_port(loop, address.name, address.passthrough, log);
  }
  Opened operator()(const NvmeTcpAddress& address) const { return open_nvme_tcp_port(loop, address, log); }
};

}  // namespace

Result<std::unique_ptr<Device>> Device::open(asio::io_context& loop, const std::string& uri,
                                             const DeviceOptions& options) {
  WritableWait::prepare(loop);
  Result<DeviceUri> parsed = parse_device_uri(uri);
  if (!parsed) return parsed.error();

  Result<std::unique_ptr<CommandPort>> port = std::visit(PortOpener{loop, options.log}, parsed->address);
  if (!port) return port.error();
  const Result<std::string> model = probe_csd(loop, **port);
  if (!model) return Error{model.error().code, uri + " " + model.error().text};

  std::unique_ptr<Device> device(new Device(loop));
  device->uri_ = std::move(*parsed);
  device->model_ = *model;
  device->port_ = std::move(*port);
  if (const auto second = probe_second_generation(loop, *device->port_)) {
    device->dialect_reason_ = "capability page of \"" + second->vendor + "\"";
    device->dialect_ = std::make_unique<DialectV2>(
        device->clock_, *device->port_, second->capabilities,
        DialectV2Options{.connect_timeout = options.connect_timeout,
                         .drain_timeout = options.drain_timeout,
                         .session = {.handle = random_handle(), .secret = random_id()},
                         .log = options.log});
  } else {
    device->dialect_reason_ = second.error().text;
    device->dialect_ =
        std::make_unique<DialectV1>(device->clock_, *device->port_,
                                    DialectV1Options{.relays = device->uri_.relays(),
                                                     .connect_timeout = options.connect_timeout,
                                                     .drain_timeout = options.drain_timeout,
                                                     .log = options.log});
  }
  return device;
}

Undelivered Device::lost() const {
  Undelivered lost = dialect_->counters().lost;
  return lost += port_->delivery().given_up;
}

void Device::finish() {
  lost_before_ = lost();
  dialect_->finish();
}

Undelivered Device::undelivered() const {
  Undelivered waiting = dialect_->undelivered();
  // What waits here waits for the credit of a connection that has bytes in the drive: they are the same.
  const Undelivered inside = port_->delivery().waiting;
  waiting.bytes += inside.bytes;
  waiting.connections = std::max(waiting.connections, inside.connections);
  return waiting += lost() - lost_before_;
}

}  // namespace nvsock
