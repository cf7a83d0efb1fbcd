#include "libnvsock/device.hpp"

#include "libnvsock/dialect_v1.hpp"
#include "libnvsock/emulated_port.hpp"
#include "libnvsock/ioctl_port.hpp"
#include "libnvsock/probe.hpp"

namespace nvsock {

Result<std::unique_ptr<Device>> Device::open(asio::io_context& loop, const std::string& uri,
                                             const DeviceOptions& options) {
  Result<DeviceUri> parsed = parse_device_uri(uri);
  if (!parsed) return parsed.error();

  Result<std::unique_ptr<CommandPort>> port = parsed->kind == DeviceUri::Kind::emulated
                                                  ? open_emulated_port(loop, parsed->emulated)
                                                  : open_ioctl_port(loop, parsed->controller);
  if (!port) return port.error();
  const Result<std::string> model = probe_csd(loop, **port);
  if (!model) return Error{model.error().code, uri + " " + model.error().text};

  std::unique_ptr<Device> device(new Device);
  device->uri_ = std::move(*parsed);
  device->model_ = *model;
  device->port_ = std::move(*port);
  device->dialect_ = std::make_unique<DialectV1>(loop, *device->port_,
                                                 DialectOptions{.relays = device->uri_.relays,
                                                                .connect_timeout = options.connect_timeout,
                                                                .drain_timeout = options.drain_timeout,
                                                                .log = options.log});
  return device;
}

}  // namespace nvsock
