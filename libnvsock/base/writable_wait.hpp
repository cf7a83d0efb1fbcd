// The wait for room in a socket, or for a connect() to end: once, beside whatever else waits for the socket.
//
// Asio would leave a socket registered for output after the first wait, and epoll then reports every change
// of its room, each with a wake-up for nothing; to register it anew ends a wait for input. So these waits
// have an epoll instance of their own, one for each loop, which the loop watches: one descriptor in all, and
// a socket is in it only while somebody waits.
//
// Threads: event loop only. Never blocks, allocates nothing.
#pragma once

#include <asio/io_context.hpp>
#include <memory>

#include "libnvsock/base/list.hpp"

namespace nvsock {

class WritableWaits;

class WritableWait : private Link<WritableWait> {
 public:
  class Waiter {
   public:
    virtual void on_writable() = 0;  // the socket has room, or an error: the next send() or SO_ERROR tells

   protected:
    ~Waiter() = default;
  };

  // Takes what the waits of this loop share, one descriptor, while there is one: for start-up. The first wait
  // would take it else, and throw if it could not.
  static void prepare(asio::io_context& loop);

  explicit WritableWait(asio::io_context& loop);
  ~WritableWait() { stop(); }
  WritableWait(const WritableWait&) = delete;
  WritableWait& operator=(const WritableWait&) = delete;

  bool waiting() const { return waiter_ != nullptr; }

  // Tells the waiter from the loop, once. It is kept alive until then, and must own this object or outlive
  // it. False, with errno: the kernel has no room for one more, and nobody will be told. REQUIRES: not
  // waiting.
  bool start(int socket, std::shared_ptr<Waiter> waiter);
  // Ends the wait, if there is one: nobody is told. Before the socket is closed.
  void stop();

 private:
  friend class WritableWaits;
  friend class List<WritableWait>;

  WritableWaits& all_;
  std::shared_ptr<Waiter> waiter_;  // null: not waiting
  int socket_ = -1;
};

}  // namespace nvsock
