// One connection to a service inside the drive, with the semantics of a connected TCP socket.
//
// A Stream is two bounded byte queues and a state; the dialect that made it moves the bytes. Nothing
// here blocks: a caller that finds no bytes or no room waits for its observer to be told.
// Threads: event loop only.
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstdint>
#include <memory>

#include "libnvsock/endpoint.hpp"
#include "libnvsock/slice_queue.hpp"

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
  static constexpr size_t send_limit = 256 * 1024;

  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  uint64_t id() const { return id_; }
  const Endpoint& peer() const { return peer_; }
  State state() const { return state_; }
  // Both ends' addresses inside the drive, once established; null where the drive does not tell them.
  struct Addresses {
    sockaddr_storage local;
    sockaddr_storage peer;
  };
  const Addresses* addresses() const { return addresses_.get(); }

  // --- receiving ---
  size_t readable() const { return received_.bytes(); }
  // No byte will follow those in readable(): the peer ended, shutdown_read() or an error.
  bool receive_ended() const { return receive_ended_; }
  int gather(iovec* out, int entries, size_t& size) { return received_.gather(out, entries, size); }
  size_t peek(uint8_t* out, size_t size) { return received_.copy(out, size); }
  void consume(size_t size);  // REQUIRES: size <= readable(). Makes room, which may fetch more.

  // --- sending ---
  bool send_ended() const { return send_ended_; }
  size_t unsent() const { return unsent_; }  // accepted, and not yet confirmed by the drive
  size_t room() const {
    return state_ == State::established && !send_ended_ && unsent_ < send_limit ? send_limit - unsent_ : 0;
  }
  // Queues up to room() bytes and starts to send them; returns the bytes taken. Copies small slices; keeps
  // a reference to the buffer of large ones, which must not change until it is released.
  size_t write(const Slice& slice);

  // Ends the sending direction once everything accepted is sent. Where the dialect has no half-close the
  // peer learns of it with the close (first generation).
  void shutdown_write();
  void shutdown_read();

  // Ends the connection at once with `code` pending here, and as a reset for the service where the dialect
  // can tell it so. What was accepted and not sent is dropped.
  virtual void abort(int code) = 0;  // the observer is told, and may let go of the stream

  // From now on this observer is told; null: nobody.
  void observe(StreamObserver* observer) { observer_ = observer; }

  // The pending error, as SO_ERROR tells it: set once by a failure, cleared by this.
  int take_error() { return std::exchange(error_, 0); }
  int error() const { return error_; }
  bool broken() const { return broken_; }  // an error ended the stream, told or not

  // What poll(2) says of a TCP socket in this state.
  short poll_events() const;

  // --- accounting ---
  uint64_t bytes_received() const { return bytes_received_; }
  uint64_t bytes_sent() const { return bytes_sent_; }

 protected:
  friend struct StreamCloser;

  Stream(uint64_t id, Endpoint peer, StreamObserver* observer)
      : id_(id), peer_(std::move(peer)), observer_(observer) {}

  // What the dialect does when the queues move.
  virtual void on_room_to_receive() = 0;
  virtual void send_queued() = 0;
  virtual void on_shutdown() = 0;  // send_ended_ or receive_ended_ was set by the user
  // The owner lets go: drain what was accepted, within a bound, then end. The dialect deletes the object.
  virtual void release() = 0;
  virtual BufferRef take_page() = 0;

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
  int error_ = 0;
  SliceQueue received_;
  SliceQueue queued_;  // accepted, not handed to the drive
  size_t unsent_ = 0;  // queued_ plus what is in flight, bytes
  uint64_t bytes_received_ = 0;
  uint64_t bytes_sent_ = 0;
  std::unique_ptr<Addresses> addresses_;
};

struct StreamCloser {
  void operator()(Stream* stream) const { stream->release(); }
};

// Dropping the handle ends the connection: accepted bytes are still sent, in the background and within
// the device's drain bound; the observer is not called again.
using StreamHandle = std::unique_ptr<Stream, StreamCloser>;

}  // namespace nvsock
