// Device URIs: within their limits, or refused in a sentence.
#include "libnvsock/device_uri.hpp"

#include "libnvsock/port/nvme_tcp_socket.hpp"
#include "tests/fuzz/fuzz.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nvsock;
  using fuzz::check;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto uri = parse_device_uri(text);
  if (!uri) {
    check(uri.error().code == EINVAL && !uri.error().text.empty(), "a refusal is told");
    check(uri.error().text.find('\n') == std::string::npos, "it is one line");
    return 0;
  }
  check(uri->text == text, "the text is kept");
  check(uri->relays() >= 1 && uri->relays() <= csd::max_relays, "relays are bounded");
  if (const auto* emulated = std::get_if<EmulatedAddress>(&uri->address)) {
    const csd::DriveOptions& drive = emulated->drive;
    check(drive.streams >= 1 && drive.streams <= csd::max_streams, "streams are bounded");
    check(drive.netns.find('/') == std::string::npos, "a namespace is a name, not a path");
  }
  if (const auto* controller = std::get_if<ControllerAddress>(&uri->address)) {
    check(controller->name.starts_with("nvme") && controller->name.find('/') == std::string::npos,
          "a controller is a name, not a path");
  }
  if (const auto* target = std::get_if<NvmeTcpAddress>(&uri->address)) {
    check(target->subsystem.starts_with("nqn.") && target->subsystem.size() <= nvme::max_nqn,
          "a subsystem has a name");
    if (target->transport == NvmeTcpAddress::Transport::unix_socket)
      check(target->path.starts_with('/') && addresses_of(*target), "a socket has an address");
  }
  return 0;
}
