#include "csd/target/target_listener.hpp"

#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "libnvsock/base/number.hpp"
#include "libnvsock/base/quoted.hpp"
#include "libnvsock/base/socket_address.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock::csd {
namespace {

constexpr size_t max_strangers = 48;
// As many as are accepted at once: hosts behind one address that all come back at the same moment.
constexpr size_t max_strangers_of_origin = 16;
constexpr int backlog = 64;

Error wrong(std::string_view address, const std::string& why) {
  return {EINVAL, "address " + quoted(address) + ": " + why};
}

Result<SocketAddress> parse_unix(std::string_view address, std::string_view path) {
  SocketAddress parsed;
  auto& name = reinterpret_cast<sockaddr_un&>(parsed.bytes);
  if (path.empty() || path.size() >= sizeof name.sun_path)
    return wrong(address,
                 "a path of 1 to " + std::to_string(sizeof name.sun_path - 1) + " bytes is expected");
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, path.size());
  parsed.size = sizeof name;
  return parsed;
}

Result<SocketAddress> parse_vsock(std::string_view address, std::string_view rest) {
  SocketAddress parsed;
  auto& name = reinterpret_cast<sockaddr_vm&>(parsed.bytes);
  name.svm_family = AF_VSOCK;
  const size_t colon = rest.find(':');
  const std::string_view cid = rest.substr(0, colon);
  name.svm_cid = VMADDR_CID_ANY;
  if (colon == rest.npos || !parse_number(rest.substr(colon + 1), name.svm_port) ||
      (cid != "any" && !parse_number(cid, name.svm_cid)))
    return wrong(address, "vsock:CID:PORT is expected, with numbers, or any for the CID");
  parsed.size = sizeof name;
  return parsed;
}

Result<SocketAddress> parse_address(std::string_view address) {
  if (address.starts_with("unix:")) return parse_unix(address, address.substr(5));
  if (address.starts_with("vsock:")) return parse_vsock(address, address.substr(6));
  SocketAddress parsed;
  const bool any_port = address.ends_with(":0");
  // Port 0 is none to connect to.
  Result<Endpoint> endpoint =
      any_port ? parse_host(address.substr(0, address.size() - 2)) : parse_endpoint(address);
  if (!endpoint) return endpoint.error();
  if (any_port) endpoint->port = 0;
  parsed.size = endpoint->to_sockaddr(parsed.bytes);
  if (parsed.size == 0) return wrong(address, "an IPv4 or IPv6 address is expected, not a name");
  return parsed;
}

std::string text_of(const sockaddr_storage& address) {
  switch (address.ss_family) {
    case AF_INET:
    case AF_INET6:
      return endpoint_of(address).text();
    case AF_VSOCK: {
      const auto& vm = reinterpret_cast<const sockaddr_vm&>(address);
      const std::string cid = vm.svm_cid == VMADDR_CID_ANY ? "any" : std::to_string(vm.svm_cid);
      return "vsock:" + cid + ':' + std::to_string(vm.svm_port);
    }
    default:
      return "unix";
  }
}

std::string uid_text(int fd) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  const bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0;
  return known ? "user " + std::to_string(credentials.uid) : "unix";
}

// A process makes others with numbers of their own at will, and a port costs nothing: neither counts.
Peer peer_of(int fd, const sockaddr_storage& address) {
  Peer peer{.text = text_of(address), .origin = {}};
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

// Whether somebody listens on this unix socket. One on which nobody does is what a target that was killed has
// left: it is removed.
bool is_taken(const std::string& path, const SocketAddress& where) {
  struct stat left {};
  if (lstat(path.c_str(), &left) != 0 || !S_ISSOCK(left.st_mode)) return false;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;  // bind() tells that something is there
  const bool connected = connect(fd, where.get(), where.size) == 0;
  const int code = errno;
  ::close(fd);
  if (!connected && code == ECONNREFUSED) unlink(path.c_str());
  return connected || code == EAGAIN;  // EAGAIN: more are waiting than it takes
}

}  // namespace

Result<std::unique_ptr<TargetListener>> TargetListener::open(asio::io_context& loop, Subsystem& subsystem,
                                                             std::string_view address, const Log& log) {
  Result<SocketAddress> where = parse_address(address);
  if (!where) return where.error();
  const int family = where->bytes.ss_family;
  const auto fail = [&](int code) {
    return Error{code, "cannot listen on " + quoted(address) + ": " + std::strerror(code)};
  };
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail(errno);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const std::string path = family == AF_UNIX ? std::string(address.substr(5)) : "";
  if (!path.empty() && is_taken(path, *where)) {
    ::close(fd);
    return Error{EADDRINUSE,
                 "cannot listen on " + quoted(address) + ": somebody listens there; end them first"};
  }
  const bool bound = bind(fd, where->get(), where->size) == 0;
  if (!bound || ::listen(fd, backlog) != 0) {
    const int code = errno;
    ::close(fd);
    if (bound && !path.empty()) unlink(path.c_str());
    return fail(code);
  }
  socklen_t size = sizeof where->bytes;
  getsockname(fd, reinterpret_cast<sockaddr*>(&where->bytes), &size);
  std::unique_ptr<TargetListener> listener(new TargetListener(loop, subsystem, fd, log));
  listener->unix_path_ = path;
  listener->text_ = family == AF_UNIX ? std::string(address) : text_of(where->bytes);
  return listener;
}

TargetListener::TargetListener(asio::io_context& loop, Subsystem& subsystem, int fd, const Log& log)
    : subsystem_(subsystem), log_(log), accepting_(loop, fd, [this](int accepted, const SocketAddress& peer) {
        add(accepted, peer_of(accepted, peer.bytes));
      }) {}

TargetListener::~TargetListener() {
  if (!unix_path_.empty()) unlink(unix_path_.c_str());
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
