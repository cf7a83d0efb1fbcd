#include "libnvsock/socket/listening_socket.hpp"

#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "libnvsock/base/number.hpp"
#include "libnvsock/base/quoted.hpp"
#include "libnvsock/base/socket_address.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock {
namespace {

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

// Whether somebody listens on this unix socket. One on which nobody does is removed.
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

Result<ListeningSocket> ListeningSocket::open(std::string_view address, const ListenOptions& options) {
  Result<SocketAddress> where = parse_address(address);
  if (!where) return where.error();
  const int family = where->bytes.ss_family;
  const std::string path = family == AF_UNIX ? std::string(address.substr(5)) : "";
  if (!path.empty() && is_taken(path, *where)) {
    return Error{EADDRINUSE,
                 "cannot listen on " + quoted(address) + ": somebody listens there; end them first"};
  }
  const auto fail = [&](int code) {
    return Error{code, "cannot listen on " + quoted(address) + ": " + std::strerror(code)};
  };
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail(errno);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (family == AF_INET6 && options.only_ipv6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  const bool bound = bind(fd, where->get(), where->size) == 0;
  // Nobody can connect before listen().
  const bool theirs =
      path.empty() || !options.unix_mode || !bound || chmod(path.c_str(), *options.unix_mode) == 0;
  if (!bound || !theirs || listen(fd, options.backlog) != 0) {
    const int code = errno;
    ::close(fd);
    if (bound && !path.empty()) unlink(path.c_str());
    return fail(code);
  }
  socklen_t size = sizeof where->bytes;
  getsockname(fd, reinterpret_cast<sockaddr*>(&where->bytes), &size);
  return ListeningSocket(fd, family == AF_UNIX ? std::string(address) : address_text(where->bytes), path);
}

ListeningSocket::ListeningSocket(ListeningSocket&& other) noexcept
    : fd_(other.take_fd()), text_(std::move(other.text_)), unix_path_(std::exchange(other.unix_path_, {})) {}

ListeningSocket::~ListeningSocket() {
  if (fd_ >= 0) ::close(fd_);
  if (!unix_path_.empty()) unlink(unix_path_.c_str());
}

std::string address_text(const sockaddr_storage& address) {
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

}  // namespace nvsock
