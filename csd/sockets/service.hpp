// What a stream of the second generation talks to inside the drive: a socket, or in a simulation a model of
// one. Nothing blocks; readiness is told. Threads: event loop only.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "libnvsock/base/result.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock::csd {

// Whose service it is: a session. What a factory has only so much of, each gets a share of.
enum class Client : uint64_t {};

class Service {
 public:
  // Each call may destroy the service that makes it: it is that service's last act.
  class Observer {
   public:
    virtual void on_connected(int error) = 0;  // once, after connect(); error 0 or an errno
    virtual void on_readable() = 0;            // once per await_readable(): receive() will not say EAGAIN
    virtual void on_writable() = 0;            // once per await_writable()

   protected:
    ~Observer() = default;
  };

  // Closes as a reset, unless close_in_order() was called: so a peer never takes what it has for all there
  // was because the drive, its process or its host came to an end. No call of the observer follows.
  virtual ~Service() = default;

  // Bytes or one datagram received, 0 at the end of a stream socket, or a negative errno (-EAGAIN: nothing
  // now). A datagram may be empty: `datagram` tells it from the end (true: this was a datagram).
  virtual ssize_t receive(std::span<uint8_t> into, bool& datagram) = 0;
  // Bytes taken, or a negative errno (-EAGAIN: no room). A datagram is taken whole or not at all.
  virtual ssize_t send(std::span<const uint8_t> from) = 0;
  virtual void await_readable() = 0;
  virtual void await_writable() = 0;
  virtual void shut_down_sending() = 0;
  // It is about to be closed, and everything was sent: bytes that send() took are still delivered, then the
  // peer sees the end. The last call.
  virtual void close_in_order() = 0;
  virtual relay_v2::Opened addresses() const = 0;  // valid once connected
};

class ServiceListener {
 public:
  class Observer {
   public:
    // Connected already. May destroy or pause the listener.
    virtual void on_accepted(std::unique_ptr<Service> service) = 0;

   protected:
    ~Observer() = default;
  };

  virtual ~ServiceListener() = default;  // stops listening; waiting connections are reset
  // Between the two, connections wait in the operating system's queue as far as it goes.
  virtual void pause() {}
  virtual void resume() {}
  virtual sockaddr_storage address() const = 0;
};

class ServiceFactory {
 public:
  virtual ~ServiceFactory() = default;

  // Starts to connect, names resolved first. Never null; a failure is told through the observer, not from
  // within this call.
  virtual std::unique_ptr<Service> connect(Client client, const relay_v2::Target& target,
                                           Service::Observer& observer) = 0;
  // An accepted service gets its observer here, before it is used.
  virtual void observe(Service& service, Service::Observer& observer) = 0;
  // The errno of a failure is what the host is told.
  virtual Result<std::unique_ptr<ServiceListener>> listen(const relay_v2::Target& target, int backlog,
                                                          ServiceListener::Observer& observer) = 0;
};

}  // namespace nvsock::csd
