// Takes connections from a listening socket, a few at a time, so that a flood of them does not keep the loop
// from everything else. When descriptors or memory are out, it rests a moment: the connection waits in the
// kernel meanwhile, and an event loop that was told of it again at once would spin.
//
// Threads: event loop only. Never blocks.
#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <memory>

#include "libnvsock/base/socket_address.hpp"

namespace nvsock {

class AcceptLoop {
 public:
  // A connected, non-blocking, close-on-exec socket, which is the callee's now, and its peer. May pause or
  // destroy the loop.
  using Accepted = std::function<void(int fd, const SocketAddress& peer)>;

  // Takes over the non-blocking, listening socket and begins.
  AcceptLoop(asio::io_context& loop, int fd, Accepted accepted);
  ~AcceptLoop();  // stops listening; connections that wait are reset
  AcceptLoop(const AcceptLoop&) = delete;
  AcceptLoop& operator=(const AcceptLoop&) = delete;

  // Between the two, connections wait in the kernel's queue, as far as that goes.
  void pause();
  void resume();
  int fd() const;

 private:
  struct State;
  const std::shared_ptr<State> state_;  // handlers that are queued outlive the loop
};

}  // namespace nvsock
