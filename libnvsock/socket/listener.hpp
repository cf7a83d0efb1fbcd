// A service of the host's inside the drive: the drive listens at an address, and every connection made to it
// becomes a Stream here.
//
// A listener is configuration and outlives the drive's sessions. When a session is lost, or the drive refuses
// the address, its observer is told, and the drive is asked again: with the next session, or after
// `listen_again_after`. That ends only with the handle.
// Threads: event loop only. Nothing blocks.
#pragma once

#include <chrono>
#include <memory>

#include "libnvsock/base/result.hpp"
#include "libnvsock/socket/endpoint.hpp"
#include "libnvsock/socket/stream.hpp"

namespace nvsock {

// Connections that may wait for the host's answer; the drive's operating system queues further ones.
inline constexpr uint32_t max_backlog = 128;  // docs/relay-protocol.md section 4

inline constexpr std::chrono::seconds listen_again_after{1};

class Listener {
 public:
  virtual ~Listener() = default;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  const Endpoint& where() const { return where_; }  // as asked for

  struct Closer {
    void operator()(Listener* listener) const { listener->release(); }
  };

 protected:
  explicit Listener(Endpoint where) : where_(std::move(where)) {}
  // The handle is gone: the drive listens no more. The dialect deletes the object. Only Closer calls it.
  virtual void release() = 0;

  const Endpoint where_;
};

// Each may drop the listener's handle.
class ListenerObserver {
 public:
  // The drive listens, at this address. Told again whenever it does so again.
  virtual void on_listening(Listener& listener, const sockaddr_storage& address) = 0;
  // The drive does not listen now: it refused, or the session was lost. It will be asked again.
  virtual void on_listen_failed(Listener& listener, const Error& error) = 0;
  // A connection, established, with both addresses; nobody observes it yet. To be moved from: one that is not
  // taken is reset. Bytes may have come before it is told, and it may have ended.
  virtual void on_accepted(Listener& listener, StreamHandle& stream) = 0;

 protected:
  ~ListenerObserver() = default;
};

// Dropping the handle ends the listener. Streams it gave go on.
using ListenerHandle = std::unique_ptr<Listener, Listener::Closer>;

}  // namespace nvsock
