// The ioctls of a connection file (libnvsock/mount_abi.h): what sockets can and files cannot.
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "fuse/connection.hpp"
#include "libnvsock/mount_abi.h"

namespace csdfs {
namespace {

using nvsock::Stream;

static_assert(Stream::max_datagram == NVSOCK_DATAGRAM_MAX);

template <typename T>
void reply(fuse_req_t request, const T& answer) {
  fuse_reply_ioctl(request, 0, &answer, sizeof answer);
}

// Reads the argument of a command; false if the caller's size does not fit.
template <typename T>
bool argument(const void* in, size_t in_size, T& out) {
  if (in == nullptr || in_size < sizeof out) return false;
  std::memcpy(&out, in, sizeof out);
  return true;
}

uint32_t abi_state(const Stream& stream) {
  switch (stream.state()) {
    case Stream::State::connecting:
      return NVSOCK_CONNECTING;
    case Stream::State::established:
      return NVSOCK_CONNECTED;
    case Stream::State::failed:
      break;
  }
  return NVSOCK_FAILED;
}

// A drive of the first generation does not tell the address its own end has. Programs only want one of the
// right family that tells their connections apart: the loopback address, and a port of the ephemeral range
// made from the stream's number.
nvsock::Endpoint local_address(const Stream& stream) {
  nvsock::Endpoint local = stream.peer();
  local.host = local.kind == nvsock::Endpoint::Kind::ipv6 ? "::1" : "127.0.0.1";
  local.port = static_cast<uint16_t>(32768 + stream.id() % 28232);
  return local;
}

// The address as an AF_INET6 socket that talks IPv4 sees it, ::ffff:a.b.c.d.
socklen_t map_to_ipv6(sockaddr_storage& address) {
  const auto v4 = reinterpret_cast<const sockaddr_in&>(address);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address);
  v6 = {};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = v4.sin_port;
  v6.sin6_addr.s6_addr[10] = v6.sin6_addr.s6_addr[11] = 0xff;
  std::memcpy(&v6.sin6_addr.s6_addr[12], &v4.sin_addr, sizeof v4.sin_addr);
  return sizeof v6;
}

bool asks_for_ipv6(const nvsock_option& option) {
  int domain = 0;
  std::memcpy(&domain, option.value, sizeof domain);
  return option.level == SOL_SOCKET && option.name == SO_DOMAIN && option.length == sizeof domain &&
         domain == AF_INET6;
}

}  // namespace

void Connection::ioctl(fuse_req_t request, unsigned command, const void* in, size_t in_size,
                       size_t out_size) {
  if (_IOC_TYPE(command) != NVSOCK_IOC_TYPE) return void(fuse_reply_err(request, ENOTTY));
  // _RECV and _SEND carry the caller's own size: told apart by their number.
  if (_IOC_NR(command) == _IOC_NR(NVSOCK_IOC_RECV(0))) return answer_receive(request, in, in_size, out_size);
  if (_IOC_NR(command) == _IOC_NR(NVSOCK_IOC_SEND(0))) return answer_send(request, in, in_size);

  switch (command) {
    case NVSOCK_IOC_INFO: {
      const int family = ipv6_socket_           ? AF_INET6
                         : stream_->addresses() ? stream_->addresses()->peer.ss_family
                                                : stream_->peer().family();
      return reply(request, nvsock_info{.abi = NVSOCK_ABI_VERSION,
                                        .state = abi_state(*stream_),
                                        .socket_type = stream_->is_datagram() ? SOCK_DGRAM : SOCK_STREAM,
                                        .domain = family == AF_UNSPEC ? AF_INET : family,
                                        .protocol = stream_->is_datagram() ? IPPROTO_UDP : IPPROTO_TCP,
                                        .max_message = NVSOCK_MESSAGE_MAX,
                                        .stream = stream_->id()});
    }
    case NVSOCK_IOC_PEER:
    case NVSOCK_IOC_LOCAL: {
      const bool peer = command == NVSOCK_IOC_PEER;
      const bool reset = peer && stream_->broken() && !stream_->is_datagram();
      if (stream_->state() != Stream::State::established || reset) {
        return void(fuse_reply_err(request, ENOTCONN));
      }
      nvsock_address answer{};
      if (const Stream::Addresses* told = stream_->addresses()) {
        answer.address = peer ? told->peer : told->local;
        answer.length = answer.address.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
      } else {
        answer.length = (peer ? stream_->peer() : local_address(*stream_)).to_sockaddr(answer.address);
      }
      if (ipv6_socket_ && answer.address.ss_family == AF_INET) answer.length = map_to_ipv6(answer.address);
      return reply(request, answer);
    }
    case NVSOCK_IOC_ERROR:
      reply(request, take_error());
      return serve_changes();
    case NVSOCK_IOC_SHUTDOWN: {
      int how = 0;
      if (!argument(in, in_size, how) || how < SHUT_RD || how > SHUT_RDWR) {
        return void(fuse_reply_err(request, EINVAL));
      }
      if (stream_->state() != Stream::State::established || stream_->broken()) {
        return void(fuse_reply_err(request, ENOTCONN));
      }
      if (how != SHUT_WR) stream_->shutdown_read();
      if (how != SHUT_RD) stream_->shutdown_write();
      fuse_reply_ioctl(request, 0, nullptr, 0);
      changed_ = true;  // blocked reads end, blocked writes fail
      return serve_changes();
    }
    case NVSOCK_IOC_INQ:
      return reply(request, static_cast<int>(stream_->next_read()));
    case NVSOCK_IOC_OUTQ:
      return reply(request, static_cast<int>(stream_->unsent()));
    case NVSOCK_IOC_SETOPT: {
      nvsock_option option;
      if (!argument(in, in_size, option)) return void(fuse_reply_err(request, EINVAL));
      ipv6_socket_ |= asks_for_ipv6(option);
      const int error = asks_for_ipv6(option) ? 0 : options_.set(option);
      return void(error == 0 ? fuse_reply_ioctl(request, 0, nullptr, 0) : fuse_reply_err(request, error));
    }
    case NVSOCK_IOC_GETOPT: {
      nvsock_option option;
      const int error = argument(in, in_size, option) ? options_.get(option) : EINVAL;
      return error == 0 ? reply(request, option) : void(fuse_reply_err(request, error));
    }
    default:
      fuse_reply_err(request, ENOTTY);
  }
}

void Connection::answer_receive(fuse_req_t request, const void* in, size_t in_size, size_t out_size) {
  nvsock_message message;
  if (!argument(in, in_size, message) || out_size < sizeof message || (message.flags & ~NVSOCK_PEEK) != 0) {
    return void(fuse_reply_err(request, EINVAL));
  }
  const size_t room = std::min<size_t>({message.length, out_size - sizeof message, NVSOCK_MESSAGE_MAX});
  const bool datagram = stream_->is_datagram();
  const bool peeks = (message.flags & NVSOCK_PEEK) != 0;
  if (datagram && stream_->error() != 0) return void(fuse_reply_err(request, take_error()));
  const size_t next = stream_->next_read();
  if (datagram && !peeks && std::min<size_t>(next, message.length) > room) {
    return void(fuse_reply_err(request, EMSGSIZE));
  }
  if (datagram) message.length = static_cast<uint32_t>(next);
  uint8_t answer[sizeof message + NVSOCK_MESSAGE_MAX];
  std::memcpy(answer, &message, sizeof message);
  const bool something = stream_->can_read();
  const size_t size = stream_->peek(answer + sizeof message, std::min(room, next));
  if (!something && (room > 0 || datagram)) {
    if (stream_->error() != 0) return void(fuse_reply_err(request, take_error()));
    if (!stream_->receive_ended()) return void(fuse_reply_err(request, EAGAIN));
  }
  const bool told = fuse_reply_ioctl(request, static_cast<int>(size), answer, sizeof message + size) == 0;
  if (told && !peeks && (size > 0 || (datagram && something))) stream_->consume(size);
  serve_changes();
}

void Connection::answer_send(fuse_req_t request, const void* in, size_t in_size) {
  nvsock_message message;
  if (!argument(in, in_size, message) || message.flags != 0 || message.length > in_size - sizeof message) {
    return void(fuse_reply_err(request, EINVAL));
  }
  if (stream_->is_datagram()) {
    const int error = !writers_.empty()
                          ? EAGAIN
                          : send_datagram({static_cast<const uint8_t*>(in) + sizeof message, message.length});
    error == 0 ? fuse_reply_ioctl(request, static_cast<int>(message.length), nullptr, 0)
               : fuse_reply_err(request, error);
    return serve_changes();
  }
  // Without a buffer to share, write() copies: it takes all there is room for at once.
  const size_t taken = writers_.empty()
                           ? stream_->write({.buffer = {},
                                             .data = static_cast<const uint8_t*>(in) + sizeof message,
                                             .size = message.length})
                           : 0;
  if (taken > 0 || message.length == 0) {
    fuse_reply_ioctl(request, static_cast<int>(taken), nullptr, 0);
  } else if (stream_->send_ended()) {
    fuse_reply_err(request, send_error());
  } else {
    fuse_reply_err(request, EAGAIN);
  }
  serve_changes();
}

}  // namespace csdfs
