// Services that are sockets in the drive's network namespace: TCP and connected UDP, over IPv4 and IPv6.
//
// Which addresses may be used is decided in one place, SocketServices::check(). Threads: event loop only.
// Nothing blocks.
#pragma once

#include <asio/io_context.hpp>
#include <cerrno>
#include <functional>
#include <memory>

#include "csd/sockets/allow_list.hpp"
#include "csd/sockets/netns.hpp"
#include "csd/sockets/resolver.hpp"
#include "csd/sockets/service.hpp"

namespace nvsock::csd {

// What hosts may use inside; by default all of it.
struct Allowed {
  AllowList to_connect{AllowList::Empty::everything};
  AllowList to_listen{AllowList::Empty::everything};
};

class SocketServices final : public ServiceFactory {
 public:
  // Services and listeners must not outlive it, nor it the loop.
  SocketServices(asio::io_context& loop, std::shared_ptr<const NetworkNamespace> where, Allowed allowed = {});

  // Told the errno of a socket that could not be made, as for want of descriptors.
  std::function<void(int error)> on_no_socket;

  std::unique_ptr<Service> connect(Client client, const relay_v2::Target& target,
                                   Service::Observer& observer) override;
  void observe(Service& service, Service::Observer& observer) override;
  // The node is an address of the drive's, not a name: looking one up would block.
  Result<std::unique_ptr<ServiceListener>> listen(const relay_v2::Target& target, int backlog,
                                                  ServiceListener::Observer& observer) override;

  // --- for services ---
  asio::io_context& loop() { return loop_; }
  Resolver& resolver() { return resolver_; }
  // 0, or EACCES for an address that `list` does not have. Every address passes here, whether given or
  // resolved, before it is connected to or listened at.
  int check(const SocketAddress& address, AllowList Allowed::*list) const {
    return (allowed_.*list).allows(address) ? 0 : EACCES;
  }
  // A non-blocking socket inside, or a negative errno.
  int make_socket(int family, int type) const;

 private:
  asio::io_context& loop_;
  const std::shared_ptr<const NetworkNamespace> where_;
  const Allowed allowed_;
  Resolver resolver_;
};

}  // namespace nvsock::csd
