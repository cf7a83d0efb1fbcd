#include "libnvsock/device.hpp"

#include "libnvsock/base/random_id.hpp"
#include "libnvsock/host/dialect_v1.hpp"
#include "libnvsock/host/dialect_v2.hpp"
#include "libnvsock/host/probe.hpp"
#include "libnvsock/port/emulated_port.hpp"
#include "libnvsock/port/nvme_tcp_port.hpp"
#include "libnvsock/port/passthrough_port.hpp"

namespace nvsock {
namespace {

Result<std::unique_ptr<CommandPort>> open_port(asio::io_context& loop, const DeviceUri& uri, const Log& log) {
  switch (uri.kind) {
    case DeviceUri::Kind::emulated:
      return open_emulated_port(loop, uri.emulated);
    case DeviceUri::Kind::controller:
      return open_passthrough_port(loop, uri.controller, uri.passthrough, log);
    case DeviceUri::Kind::nvme_tcp:
      break;
  }
  return open_nvme_tcp_port(loop, uri.target, log);
}

}  // namespace

Result<std::unique_ptr<Device>> Device::open(asio::io_context& loop, const std::string& uri,
                                             const DeviceOptions& options) {
  Result<DeviceUri> parsed = parse_device_uri(uri);
  if (!parsed) return parsed.error();

  Result<std::unique_ptr<CommandPort>> port = open_port(loop, *parsed, options.log);
  if (!port) return port.error();
  const Result<std::string> model = probe_csd(loop, **port);
  if (!model) return Error{model.error().code, uri + " " + model.error().text};

  std::unique_ptr<Device> device(new Device(loop));
  device->uri_ = std::move(*parsed);
  device->model_ = *model;
  device->port_ = std::move(*port);
  const Result<SecondGeneration> second = probe_capabilities(loop, *device->port_);
  device->dialect_reason_ = second ? second->found_by : second.error().text;
  if (second) {
    device->dialect_ =
        std::make_unique<DialectV2>(device->clock_, *device->port_, second->capabilities,
                                    DialectV2Options{.connect_timeout = options.connect_timeout,
                                                     .drain_timeout = options.drain_timeout,
                                                     .session = random_id(),
                                                     .log = options.log});
  } else {
    device->dialect_ =
        std::make_unique<DialectV1>(device->clock_, *device->port_,
                                    DialectV1Options{.relays = device->uri_.relays,
                                                     .connect_timeout = options.connect_timeout,
                                                     .drain_timeout = options.drain_timeout,
                                                     .log = options.log});
  }
  return device;
}

}  // namespace nvsock
