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
  check(uri->relays >= 1 && uri->relays <= DeviceUri::max_relays, "relays are bounded");
  check(uri->emulated.streams >= 1 && uri->emulated.streams <= DeviceUri::max_streams, "streams are bounded");
  check(uri->emulated.netns.find('/') == std::string::npos, "a namespace is a name, not a path");
  if (uri->kind == DeviceUri::Kind::controller) {
    check(uri->controller.starts_with("nvme") && uri->controller.find('/') == std::string::npos,
          "a controller is a name, not a path");
  }
  if (uri->kind == DeviceUri::Kind::nvme_tcp) {
    check(uri->target.subsystem.starts_with("nqn.") && uri->target.subsystem.size() <= nvme::max_nqn,
          "a subsystem has a name");
    if (uri->target.transport == NvmeTcpTarget::Transport::unix_socket)
      check(uri->target.path.starts_with('/') && addresses_of(uri->target), "a socket has an address");
  }
  return 0;
}
