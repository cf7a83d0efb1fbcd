#include "libnvsock/forward/forward.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "libnvsock/base/reset_on_close.hpp"

namespace nvsock {
namespace {

constexpr int backlog = 128;
// Whoever may connect there may use the drive.
constexpr mode_t owner_only = 0600;

bool is_missing_family(int error) {
  return error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
}

// "127.0.0.1:0" with the port of "127.0.0.1:4711".
std::string with_port_of(const std::string& address, const std::string& chosen) {
  return address.substr(0, address.rfind(':')) + chosen.substr(chosen.rfind(':'));
}

bool takes_any_port(std::string_view name) {
  return name == "0" || name.ends_with(":0");
}

using Sockets = std::vector<ListeningSocket>;

// All of them with the first one's port. `rejected` has it where another address has it in use.
Result<Sockets> listen_once(const std::vector<std::string>& addresses, Sockets& rejected) {
  Sockets sockets;
  Error last;
  for (const std::string& address : addresses) {
    const std::string where =
        !sockets.empty() && takes_any_port(address) ? with_port_of(address, sockets.front().text()) : address;
    Result<ListeningSocket> socket =
        ListeningSocket::open(where, {.backlog = backlog, .only_ipv6 = true, .unix_mode = owner_only});
    if (socket) {
      sockets.push_back(std::move(*socket));
    } else if (addresses.size() > 1 && is_missing_family(socket.error().code)) {
      last = socket.error();
    } else {
      if (!sockets.empty()) rejected.push_back(std::move(sockets.front()));
      return socket.error();
    }
  }
  if (sockets.empty()) return last;
  return sockets;
}

// A port that is free at one address may be taken at the next. What was rejected is held meanwhile, so that
// the kernel chooses another one.
Result<Sockets> listen_on(const std::vector<std::string>& addresses) {
  constexpr int tries = 16;
  Sockets rejected;
  Result<Sockets> sockets = listen_once(addresses, rejected);
  for (int i = 1;
       i < tries && !sockets && sockets.error().code == EADDRINUSE && takes_any_port(addresses.front());
       ++i) {
    sockets = listen_once(addresses, rejected);
  }
  return sockets;
}

}  // namespace

Result<std::unique_ptr<Forward>> Forward::open(asio::io_context& loop, BufferPool& pool, ForwardSpec spec,
                                               Connect connect, Options options) {
  Result<Sockets> listening = listen_on(spec.listen);
  if (!listening) return listening.error();
  Sockets sockets = std::move(*listening);
  if (takes_any_port(spec.name)) {
    const std::string& chosen = sockets.front().text();
    spec.name = spec.name == "0" ? chosen.substr(chosen.rfind(':') + 1) : with_port_of(spec.name, chosen);
  }
  std::unique_ptr<Forward> forward(
      new Forward(loop, pool, std::move(spec), std::move(connect), std::move(options)));
  for (ListeningSocket& socket : sockets) {
    forward->accepting_.push_back(std::make_unique<AcceptLoop>(
        loop, socket.take_fd(),
        [self = forward.get()](int fd, const SocketAddress& peer) { self->accept(fd, peer); }));
  }
  forward->sockets_ = std::move(sockets);
  return forward;
}

Forward::Forward(asio::io_context& loop, BufferPool& pool, ForwardSpec spec, Connect connect, Options options)
    : loop_(loop),
      pool_(pool),
      spec_(std::move(spec)),
      connect_(std::move(connect)),
      options_(std::move(options)) {}

Forward::~Forward() {
  for (auto& [stream, client] : std::exchange(clients_, {})) client.splice->abort();
}

std::string Forward::listening() const {
  std::string text;
  for (const ListeningSocket& socket : sockets_) text += (text.empty() ? "" : " and ") + socket.text();
  return text;
}

void Forward::accept(int fd, const SocketAddress& peer) {
  ++counters_.accepted;
  reset_on_close(fd, true);
  const std::string client = address_text(peer.bytes);
  if (clients_.size() >= options_.most_connections) {
    ++counters_.failed;
    ::close(fd);
    if (!std::exchange(full_, true)) {
      log(LogLevel::warning, std::to_string(clients_.size()) +
                                 " connections are open, which is the limit: "
                                 "further ones are reset");
    }
    return;
  }
  // Whose end a machine that went away never tells.
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  Result<StreamHandle> stream = connect_(spec_.inside, nullptr);
  if (!stream) {
    ++counters_.failed;
    ::close(fd);
    return log(LogLevel::warning, "the connection of " + client + " was reset: " + stream.error().text);
  }
  if (options_.once) accepting_.clear();  // this very loop, which copes
  const uint64_t id = (*stream)->id();
  const auto splice = std::make_shared<StreamSplice>(
      loop_, pool_, std::move(*stream), [this](StreamSplice& one, int error) { ended(one, error); });
  clients_.emplace(id, Client{client, splice});
  log(LogLevel::debug,
      "connection " + std::to_string(id) + " is of " + client + " to " + spec_.inside.text());
  splice->join(fd);
}

void Forward::ended(StreamSplice& splice, int error) {
  const Stream& stream = splice.stream();
  const auto client = clients_.extract(stream.id());
  counters_.to_drive += stream.bytes_sent();
  counters_.from_drive += stream.bytes_received();
  if (error != 0) {
    ++counters_.failed;
    log(LogLevel::info, "the connection of " + client.mapped().address + " to " + spec_.inside.text() +
                            " ended: " + std::strerror(error));
  }
  full_ = false;
  if (options_.on_ended) {
    const auto on_ended = options_.on_ended;
    on_ended();
  }
}

Forward::Counters Forward::counters() const {
  Counters counters = counters_;
  counters.connections = clients_.size();
  for (const auto& [id, client] : clients_) {
    counters.to_drive += client.splice->stream().bytes_sent();
    counters.from_drive += client.splice->stream().bytes_received();
  }
  return counters;
}

const std::string* Forward::client_of(uint64_t stream) const {
  const auto found = clients_.find(stream);
  return found != clients_.end() ? &found->second.address : nullptr;
}

void Forward::log(LogLevel level, const std::string& text) const {
  if (options_.log) options_.log(level, "forward " + spec_.name + ": " + text);
}

}  // namespace nvsock
