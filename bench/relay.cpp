#include "bench/relay.hpp"

#include <cerrno>

#include "bench/listening.hpp"

namespace bench {

Result<Server> start_relay(uint16_t server_port) {
  if (!in_path("socat")) return Error{ENOENT, "socat is not installed"};
  // -b: its default of 8 KiB would make it a slow relay rather than a usual one.
  return start_listening([&](const std::string& port) -> std::vector<std::string> {
    return {"socat", "-b131072", "TCP-LISTEN:" + port + ",bind=127.0.0.1,reuseaddr,fork,nodelay",
            "TCP:127.0.0.1:" + std::to_string(server_port) + ",nodelay"};
  });
}

}  // namespace bench
