#include "libnvsock/port/controller_address.hpp"

#include <algorithm>
#include <cerrno>

#include "csd/base/drive_options.hpp"
#include "libnvsock/base/quoted.hpp"
#include "libnvsock/relay/v1.hpp"

namespace nvsock {
namespace {

constexpr std::string_view prefix = "/dev/nvme";

bool all_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

bool is_controller(std::string_view uri) {
  return uri.starts_with(prefix);
}

Result<ControllerAddress> parse_controller_address(std::string_view uri) {
  UriReader reader(uri);
  if (!is_controller(uri) || !all_digits(reader.base().substr(prefix.size()))) {
    return Error{EINVAL, "not a controller; give the controller's own device, such as /dev/nvme0"};
  }
  ControllerAddress address;
  address.name = reader.base().substr(std::string_view("/dev/").size());
  address.relays = relay_v1::shipped_relays;
  while (const auto option = reader.next()) {
    if (option->key == "relays") {
      const Result<unsigned> relays = parse_in_range(*option, csd::max_relays);
      if (!relays) return relays.error();
      address.relays = *relays;
    } else if (option->key == "passthrough") {
      if (option->value == "auto") {
        address.passthrough = Passthrough::automatic;
      } else if (option->value == "io_uring") {
        address.passthrough = Passthrough::io_uring;
      } else if (option->value == "ioctl") {
        address.passthrough = Passthrough::ioctl;
      } else {
        return Error{EINVAL,
                     "passthrough=" + printable(option->value) + " is unknown (auto, io_uring, ioctl)"};
      }
    } else {
      return unknown_option(*option, controller_options);
    }
  }
  return address;
}

}  // namespace nvsock
