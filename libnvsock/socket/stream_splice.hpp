// Joins a stream of the drive and a connection on the host, so that each end sees the other's bytes, end
// and reset as if the two were one connection.
//
// Memory: what a stream may hold (its read-ahead and Stream::send_limit), and nothing of its own: bytes are
// read from the socket only when the stream has room for them, into blocks of the pool that all splices
// share. Idle it waits for both sides and costs nothing. Threads: event loop only; nothing blocks.
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>

#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/base/writable_wait.hpp"
#include "libnvsock/socket/stream.hpp"

namespace nvsock {

class StreamSplice final : public std::enable_shared_from_this<StreamSplice>,
                           private StreamObserver,
                           private WritableWait::Waiter {
 public:
  // The last word of a splice: both directions ended in good order (0), or the errno that ended it.
  using Ended = std::function<void(StreamSplice& splice, int error)>;

  static constexpr std::chrono::seconds connect_timeout{10};
  // Where the drive's protocol has no half-close, a service does not learn that a client has sent all, and a
  // client that is gone looks like one that waits. After so long without a byte for it the connection inside
  // is closed; a client that does wait sees a reset.
  static constexpr std::chrono::seconds quiet_after_end{5};
  static constexpr uint32_t block_size = 64 * 1024;  // of the pool

  // REQUIRES: a pool of such blocks that outlives the loop's handlers.
  StreamSplice(asio::io_context& loop, BufferPool& pool, StreamHandle stream, Ended ended);

  // One of the two, once, and first. `ended` may be called before they return.
  // Connects to the service, whose address is one of the host's, and moves bytes. When it cannot be reached
  // the stream is reset. REQUIRES: the stream is established.
  void connect(const Endpoint& service);
  // Takes over a connected, non-blocking stream socket, and moves bytes once the stream is established. When
  // that fails, the connection is reset. What the client does meanwhile waits in its socket.
  void join(int fd);

  // Resets both connections, and calls nobody.
  void abort();

  const Stream& stream() const { return *stream_; }  // REQUIRES: not ended, or within the call of `ended`

 private:
  void on_stream_change(Stream& stream) override;

  void on_writable() override;

  void assign(int fd);
  void connected(int error);
  void move();
  bool move_to_socket();
  bool move_from_socket();
  void await_readable();
  void await_writable();
  void await_quiet();
  bool over() const;
  void end(int error);
  void close(int error);

  asio::posix::stream_descriptor socket_;
  WritableWait writable_;
  BufferPool& pool_;
  StreamHandle stream_;  // null once closed
  Ended ended_;
  const std::unique_ptr<Clock::Timer> timer_;  // while connecting, and for quiet_after_end
  BufferRef block_;                            // what the socket's next bytes go to
  bool connected_ = false;
  bool over_ = false;
  bool moving_ = false;
  bool again_ = false;  // something changed meanwhile
  bool awaiting_readable_ = false;
  bool service_ended_ = false;     // the socket's end was read
  bool told_service_end_ = false;  // the stream's end was passed on
};

}  // namespace nvsock
