// One connection to a service inside the drive, with the semantics of a connected TCP socket, or of a
// connected UDP socket if its peer's type is datagram.
//
// A Stream is two bounded byte queues and a state; the dialect that made it moves the bytes. Nothing
// here blocks: a caller that finds no bytes or no room waits for its observer to be told. Datagrams lie in
// the same queues, with their sizes beside them.
// Threads: event loop only.
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>

#include "libnvsock/base/slice_queue.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock {

class Stream;

class StreamObserver {
 public:
  // Anything a caller could wait for may have changed: established, failed, bytes, room, end.
  // May be called from within write() and consume() of the same stream.
  virtual void on_stream_change(Stream& stream) = 0;

 protected:
  ~StreamObserver() = default;
};

class Stream {
 public:
  enum class State : uint8_t {
    connecting,   // the drive has not answered; neither side moves bytes
    established,  // also after one or both directions ended
    failed,       // never was established; take_error() tells why, once
  };

  // Bytes that write() accepts ahead of the drive.
  static constexpr size_t send_limit = 1024 * 1024;
  static constexpr size_t max_datagram = 65507;  // UDP over IPv4
  // What a datagram counts beyond its bytes, so that empty ones are bounded too.
  static constexpr size_t datagram_cost = 16;

  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  uint64_t id() const { return id_; }
  const Endpoint& peer() const { return peer_; }
  bool is_datagram() const { return peer_.type == SocketType::datagram; }
  State state() const { return state_; }
  // Both ends' addresses inside the drive, once established; null where the drive does not tell them.
  struct Addresses {
    sockaddr_storage local;
    sockaddr_storage peer;
  };
  const Addresses* addresses() const { return addresses_.get(); }

  // --- receiving ---
  size_t readable() const { return received_.bytes(); }
  // Is there a byte to read, or a datagram, which may be empty? And what one read may give at most: all that
  // is readable, or the next datagram.
  bool can_read() const { return datagrams_ ? !datagrams_->received.empty() : readable() > 0; }
  size_t next_read() const {
    if (!datagrams_) return readable();
    return datagrams_->received.empty() ? 0 : datagrams_->received.front();
  }
  // No byte will follow those in readable(): the peer ended, shutdown_read() or an error.
  bool receive_ended() const { return receive_ended_; }
  int gather(iovec* out, int entries, size_t& size) { return received_.gather(out, entries, size); }
  size_t peek(uint8_t* out, size_t size) { return received_.copy(out, size); }
  // REQUIRES: size <= next_read(), and for datagrams can_read(). Makes room, which may fetch more. Of a
  // datagram the rest goes too.
  void consume(size_t size);

  // --- sending ---
  bool send_ended() const { return send_ended_; }
  size_t unsent() const { return unsent_; }  // accepted, and not yet confirmed by the drive
  size_t room() const {
    return state_ == State::established && !send_ended_ && unsent_ < send_limit ? send_limit - unsent_ : 0;
  }
  // Queues up to room() bytes and starts to send them; returns the bytes taken. Copies small slices; keeps
  // a reference to the buffer of large ones, which must not change until it is released.
  size_t write(const Slice& slice);
  // Queues one datagram, copied, and starts to send it. 0, EMSGSIZE (no waiting helps), EAGAIN (no room now)
  // or EPIPE (send_ended()). REQUIRES: is_datagram().
  int write_datagram(std::span<const uint8_t> datagram);

  // Ends the sending direction once everything accepted is sent. Where the dialect has no half-close the
  // peer learns of it with the close (first generation).
  void shutdown_write();
  void shutdown_read();
  virtual bool half_closes() const { return true; }  // the peer learns of shutdown_write() at once

  // Ends the connection at once with `code` pending here, and as a reset for the service where the dialect
  // can tell it so. What was accepted and not sent is dropped.
  virtual void abort(int code) = 0;  // the observer is told, and may let go of the stream

  // Dropping the handle will be the end of the program, not of the connection: after what was accepted, which
  // goes within a few seconds or not at all, the service sees a reset where the dialect can tell it so.
  void cut_on_release() { cut_ = true; }

  // From now on this observer is told; null: nobody.
  void observe(StreamObserver* observer) { observer_ = observer; }

  // The pending error, as SO_ERROR tells it: set once by a failure, cleared by this. A datagram stream may go
  // on after one.
  int take_error() { return std::exchange(error_, 0); }
  int error() const { return error_; }
  bool broken() const { return broken_; }  // an error ended the stream, told or not

  // What poll(2) says of a TCP or UDP socket in this state.
  short poll_events() const;

  // --- accounting ---
  uint64_t bytes_received() const { return bytes_received_; }
  uint64_t bytes_sent() const { return bytes_sent_; }
  uint64_t datagrams_received() const { return datagrams_ ? datagrams_->arrived : 0; }

  struct Closer {
    void operator()(Stream* stream) const { stream->release(); }
  };

 protected:
  Stream(uint64_t id, Endpoint peer, StreamObserver* observer)
      : id_(id),
        peer_(std::move(peer)),
        observer_(observer),
        datagrams_(is_datagram() ? std::make_unique<Datagrams>() : nullptr) {}

  // The sizes of the datagrams in received_ and queued_, in their order.
  struct Datagrams {
    std::deque<uint32_t> received;
    std::deque<uint32_t> queued;
    size_t largest = max_datagram;  // that may be sent
    uint64_t arrived = 0;
  };

  // What the dialect does when the queues move.
  virtual void on_room_to_receive() = 0;
  virtual void send_queued() = 0;
  virtual void on_shutdown() = 0;  // send_ended_ or receive_ended_ was set by the user
  // The handle is gone: drain what was accepted, within a bound, then end. The dialect deletes the object.
  // Only Closer calls it.
  virtual void release() = 0;
  virtual BufferRef take_page() = 0;

  // The bound for accepted bytes after release(). Of a stream that is cut nobody was promised anything.
  std::chrono::seconds drain_bound(std::chrono::seconds drain_timeout) const;

  bool has_queued() const { return datagrams_ ? !datagrams_->queued.empty() : !queued_.empty(); }
  void drop_queued();
  void fail(int code);  // ends both directions with `code` pending
  void notify() {
    if (observer_ != nullptr) observer_->on_stream_change(*this);
  }

  const uint64_t id_;
  const Endpoint peer_;
  StreamObserver* observer_;
  State state_ = State::connecting;
  bool receive_ended_ = false;
  bool send_ended_ = false;
  bool broken_ = false;
  bool cut_ = false;
  int error_ = 0;
  SliceQueue received_;
  SliceQueue queued_;  // accepted, not handed to the drive
  size_t unsent_ = 0;  // queued_ plus what is in flight, bytes, and datagram_cost for each datagram
  uint64_t bytes_received_ = 0;
  uint64_t bytes_sent_ = 0;
  std::unique_ptr<Addresses> addresses_;
  const std::unique_ptr<Datagrams> datagrams_;  // null: a byte stream
};

// Dropping the handle ends the connection: accepted bytes are still sent, in the background and within
// the device's drain bound; the observer is not called again.
using StreamHandle = std::unique_ptr<Stream, Stream::Closer>;

}  // namespace nvsock
