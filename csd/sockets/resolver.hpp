// Names, resolved inside the drive's network namespace: getaddrinfo(3) blocks, so it has a thread of its own,
// and that thread lives in the namespace.
//
// One name at a time: a name server that does not answer holds up other names, never a stream. Threads: calls
// and answers on the event loop's.
#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "csd/sockets/netns.hpp"
#include "libnvsock/base/socket_address.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock::csd {

using SocketAddresses = std::vector<SocketAddress>;

class Resolver {
 public:
  Resolver(asio::io_context& loop, std::shared_ptr<const NetworkNamespace> where);
  ~Resolver();  // does not wait for the name at hand

  // The addresses of a node that is an address already; empty if it is a name, or wrong for its family.
  static SocketAddresses numeric(const relay_v2::Target& target);
  // Calls back on the loop, never from within. Empty: it cannot be resolved. `answer` is dropped if the
  // resolver goes first.
  void resolve(const relay_v2::Target& target, std::function<void(SocketAddresses)> answer);

 private:
  struct Shared;
  static void work(const std::shared_ptr<Shared>& shared);

  asio::io_context& loop_;
  std::shared_ptr<Shared> shared_;  // with the thread
  bool started_ = false;            // the thread starts with the first name
};

}  // namespace nvsock::csd
