#include "libnvsock/port/passthrough_port.hpp"

#include <cerrno>

#include "libnvsock/nvme/identify.hpp"
#include "libnvsock/port/ioctl_port.hpp"
#include "libnvsock/port/nvme_driver.hpp"
#include "libnvsock/port/uring_port.hpp"

namespace nvsock {
namespace {

// Has the driver what the kernel has?
Result<std::unique_ptr<CommandPort>> try_uring_port(asio::io_context& loop,
                                                    const std::shared_ptr<const ControllerFile>& controller) {
  Result<std::unique_ptr<CommandPort>> port = make_uring_port(loop, controller);
  if (!port) return port;
  const Result<std::string> model = identify_model(loop, **port);
  if (model) return port;
  const int code = model.error().code;
  if (code == EOPNOTSUPP || code == ENOTTY || code == EINVAL) {
    return Error{code, "the driver takes no commands from it"};
  }
  return model.error();
}

}  // namespace

Result<std::unique_ptr<CommandPort>> open_passthrough_port(asio::io_context& loop, const std::string& name,
                                                           Passthrough way, const Log& log) {
  const auto controller = open_controller(name);
  if (!controller) return controller.error();
  if (way == Passthrough::ioctl) return make_ioctl_port(loop, *controller);

  Result<std::unique_ptr<CommandPort>> port = try_uring_port(loop, *controller);
  if (port) return port;
  const auto& [code, why] = port.error();
  if (way == Passthrough::io_uring) {
    return Error{code, "cannot use /dev/" + name + " by io_uring: " + why +
                           "; without passthrough=io_uring, ioctl takes its place"};
  }
  const std::string reason = "no io_uring: " + why;
  if (log) log(LogLevel::info, "commands go to /dev/" + name + " by ioctl (" + reason + ")");
  return make_ioctl_port(loop, *controller, reason);
}

}  // namespace nvsock
