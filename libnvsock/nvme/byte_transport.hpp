// The bytes of one connection, in order, both ways: as they are (below), or through TLS (tls_transport.hpp).
//
// Never blocks. A transport uses a connected, non-blocking stream socket that belongs to its user, who waits
// for it to become readable or writable, and calls send() again whenever receive() was called: what was
// received may have to be answered before anything else can be sent. Threads: one at a time.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace nvsock {

class ByteTransport {
 public:
  virtual ~ByteTransport() = default;

  // Would send() get on, given bytes to send or not? `any`: bytes are given.
  virtual bool sends(bool any) const = 0;
  // How many bytes were taken from the front of `parts`, which are not needed any more; 0 if none could be
  // now, without the need to wait for the socket. -1 with errno: EAGAIN (wait until it is writable), or what
  // ended the connection. No SIGPIPE.
  virtual ssize_t send(std::span<const iovec> parts) = 0;
  // How many bytes were put at the front of `parts`: fewer than fit only if no more are there. 0: the peer
  // has ended. -1 with errno: EAGAIN (wait until it is readable), or what ended the connection.
  virtual ssize_t receive(std::span<const iovec> parts) = 0;
  // May receive() have more to give although the socket does not become readable?
  virtual bool pending() const { return false; }
  // Tells the peer that nothing follows, if that can be done at once. The socket stays as it is.
  virtual void end() {}

  // What ended the connection where errno does not tell enough: a sentence, which calls a target "it"; or
  // empty.
  virtual const std::string& failure() const = 0;
  // The NQN of the host that the peer has shown to be by its key; empty: nothing was shown.
  virtual std::string_view proven_host() const { return {}; }
};

std::unique_ptr<ByteTransport> make_plain_transport(int fd);

}  // namespace nvsock
