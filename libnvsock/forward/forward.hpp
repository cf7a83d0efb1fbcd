// A port of this host that leads into the drive: each connection accepted there is joined with a connection
// to one service inside (libnvsock/socket/stream_splice.hpp).
//
// The two ends mirror each other: bytes, half-close and reset; a service that refuses, or cannot be reached,
// ends the accepted connection with a reset (on unix sockets and vsock, which have none, with its end). A
// forward is configuration: it stays while the drive is away, and serves again when it is back.
//
// Limits: `most_connections` at a time, further ones are reset and one line says so. A connection is two
// descriptors less one, and at most 1 MiB each way. Threads: event loop only. Nothing blocks.
#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libnvsock/base/accept_loop.hpp"
#include "libnvsock/base/log.hpp"
#include "libnvsock/forward/forward_spec.hpp"
#include "libnvsock/socket/listening_socket.hpp"
#include "libnvsock/socket/stream_splice.hpp"

namespace nvsock {

class Forward {
 public:
  static constexpr size_t default_connections = 256;
  static constexpr size_t kept_blocks = 16;  // of the pool, 1 MiB

  // Starts a connection inside the drive, as Device::connect does.
  using Connect = std::function<Result<StreamHandle>(const Endpoint& where, StreamObserver* observer)>;

  struct Options {
    size_t most_connections = default_connections;
    bool once = false;  // listens no more once it has accepted a connection
    Log log{};
    std::function<void()> on_ended{};  // after each connection's end; may destroy the forward
  };
  struct Counters {
    size_t connections = 0;  // now
    uint64_t accepted = 0;   // since the forward began, as all that follow
    uint64_t failed = 0;     // refused ones included
    uint64_t to_drive = 0;   // bytes
    uint64_t from_drive = 0;
  };

  // Listens. An error comes with a sentence, and nothing listens then. `pool`: of StreamSplice's blocks,
  // outlives the loop's handlers.
  static Result<std::unique_ptr<Forward>> open(asio::io_context& loop, BufferPool& pool, ForwardSpec spec,
                                               Connect connect, Options options);
  ~Forward();  // all its connections are reset
  Forward(const Forward&) = delete;
  Forward& operator=(const Forward&) = delete;

  const std::string& name() const { return spec_.name; }  // of the port that was chosen, where it was 0
  const Endpoint& inside() const { return spec_.inside; }
  std::string listening() const;  // "127.0.0.1:80 and [::1]:80"
  // From the next connection on.
  void lead_to(Endpoint inside) { spec_.inside = std::move(inside); }
  Counters counters() const;
  // Who is at the host's end of a stream; null: the stream came from elsewhere.
  const std::string* client_of(uint64_t stream) const;

 private:
  struct Client {
    std::string address;
    std::shared_ptr<StreamSplice> splice;
  };
  Forward(asio::io_context& loop, BufferPool& pool, ForwardSpec spec, Connect connect, Options options);
  void accept(int fd, const SocketAddress& peer);
  void ended(StreamSplice& splice, int error);
  void log(LogLevel level, const std::string& text) const;

  asio::io_context& loop_;
  BufferPool& pool_;
  ForwardSpec spec_;
  const Connect connect_;
  const Options options_;
  Counters counters_;                   // of connections that ended
  bool full_ = false;                   // said so
  std::map<uint64_t, Client> clients_;  // by stream
  std::vector<ListeningSocket> sockets_;
  std::vector<std::unique_ptr<AcceptLoop>> accepting_;
};

}  // namespace nvsock
