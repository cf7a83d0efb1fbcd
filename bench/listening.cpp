#include "bench/listening.hpp"

#include <sys/socket.h>

#include <cerrno>

#include "bench/loopback.hpp"

namespace bench {
namespace {

using namespace std::chrono_literals;

constexpr auto start_limit = 5s;
constexpr auto probe_interval = 10ms;

// Another program may take it meanwhile; then ours ends, and says so.
Result<uint16_t> free_port() {
  const Fd probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = loopback(0);
  socklen_t length = sizeof address;
  if (bind(probe.get(), reinterpret_cast<sockaddr*>(&address), length) < 0 ||
      getsockname(probe.get(), reinterpret_cast<sockaddr*>(&address), &length) < 0)
    return system_error("bind to 127.0.0.1");
  return ntohs(address.sin_port);
}

bool listens(uint16_t port) {
  const Fd probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in address = loopback(port);
  return connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

}  // namespace

Result<Server> start_listening(
    const std::function<std::vector<std::string>(const std::string& port)>& arguments) {
  const auto port = free_port();
  if (!port) return port.error();
  const std::vector<std::string> argv = arguments(std::to_string(*port));
  auto program = start({argv, {}});
  if (!program) return program.error();

  const auto deadline = Clock::now() + start_limit;
  while (!listens(*port)) {
    const auto ended = program->wait(Clock::now() + probe_interval);
    if (ended) return Error{EPROTO, argv[0] + " ended with status " + std::to_string(*ended)};
    if (ended.error().code != ETIMEDOUT || Clock::now() > deadline) return ended.error();
  }
  return Server{std::move(*program), *port};
}

}  // namespace bench
