#include "csd/target/target_listener.hpp"

#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "libnvsock/base/socket_address.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock::csd {
namespace {

constexpr size_t max_strangers = 48;
// As many as are accepted at once: hosts behind one address that all come back at the same moment.
constexpr size_t max_strangers_of_origin = 16;
constexpr int backlog = 64;

std::string uid_text(int fd) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  const bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0;
  return known ? "user " + std::to_string(credentials.uid) : "unix";
}

// A process makes others with numbers of their own at will, and a port costs nothing: neither counts.
Peer peer_of(int fd, const sockaddr_storage& address) {
  Peer peer{.text = address_text(address), .origin = {}};
  switch (address.ss_family) {
    case AF_INET:
      peer.origin = endpoint_of(address).host;
      break;
    case AF_INET6: {
      sockaddr_storage network = address;
      in6_addr& bytes = reinterpret_cast<sockaddr_in6&>(network).sin6_addr;
      if (!IN6_IS_ADDR_V4MAPPED(&bytes)) std::memset(bytes.s6_addr + 8, 0, 8);
      peer.origin = endpoint_of(network).host;
      break;
    }
    case AF_VSOCK:
      peer.origin = "CID " + std::to_string(reinterpret_cast<const sockaddr_vm&>(address).svm_cid);
      break;
    default:
      peer.origin = uid_text(fd);
  }
  return peer;
}

}  // namespace

Result<std::unique_ptr<TargetListener>> TargetListener::open(asio::io_context& loop, Subsystem& subsystem,
                                                             std::string_view address, const Log& log) {
  Result<ListeningSocket> socket = ListeningSocket::open(address, {.backlog = backlog});
  if (!socket) return socket.error();
  return std::unique_ptr<TargetListener>(new TargetListener(loop, subsystem, std::move(*socket), log));
}

TargetListener::TargetListener(asio::io_context& loop, Subsystem& subsystem, ListeningSocket socket,
                               const Log& log)
    : subsystem_(subsystem),
      log_(log),
      socket_(std::move(socket)),
      accepting_(loop, socket_.take_fd(), [this](int accepted, const SocketAddress& peer) {
        add(accepted, peer_of(accepted, peer.bytes));
      }) {}

TargetListener::~TargetListener() {
  for (const auto& connection : connections_) {
    if (const auto held = connection.lock()) held->close();
  }
}

void TargetListener::add(int fd, Peer peer) {
  make_place(peer.origin);
  connections_.push_back(subsystem_.add(fd, std::move(peer)));
}

// The newest, too, might be the one that never says a word; but then it is the oldest soon.
void TargetListener::make_place(const std::string& origin) {
  std::erase_if(connections_, [](const auto& connection) { return connection.expired(); });
  std::map<std::string, std::vector<std::shared_ptr<NvmeConnection>>> strangers;  // oldest first
  size_t all = 0;
  for (const auto& connection : connections_) {
    const auto held = connection.lock();
    if (held->connected()) continue;
    strangers[held->origin()].push_back(held);
    ++all;
  }
  auto from = strangers.find(origin);
  const bool origin_full = from != strangers.end() && from->second.size() >= max_strangers_of_origin;
  if (!origin_full && all < max_strangers) return;
  if (!origin_full)
    from = std::ranges::max_element(strangers, {}, [](const auto& each) { return each.second.size(); });
  const std::shared_ptr<NvmeConnection>& oldest = from->second.front();
  if (log_)
    log_(LogLevel::warning, oldest->peer() + ": closed before its Connect to make room for a newcomer: " +
                                std::to_string(all) + " connections are no queues yet, " +
                                std::to_string(from->second.size()) + " of them from " + from->first);
  oldest->close();
}

}  // namespace nvsock::csd
