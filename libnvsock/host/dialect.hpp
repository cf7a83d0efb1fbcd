// What a generation of the relay protocol must offer: streams, over the commands it knows.
//
// Threads: event loop only. No call blocks. Device calls it; streams and listeners know their owner, which is
// less.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "libnvsock/base/log.hpp"
#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/relay/v2.hpp"
#include "libnvsock/socket/listener.hpp"
#include "libnvsock/socket/stream.hpp"

namespace nvsock {

// Counters since the device was opened; all of them only grow, but for the ones named "now".
struct DialectCounters {
  uint64_t opens = 0;  // open requests sent to the drive
  uint64_t open_failures = 0;
  uint64_t commands = 0;  // commands sent, all kinds
  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
  unsigned streams_now = 0;    // streams that occupy a relay in the drive, closing ones included
  unsigned in_flight_now = 0;  // commands submitted and not completed
  unsigned max_in_flight = 0;
  unsigned abandoned_now = 0;  // commands given up on: the drive never completed them
  Undelivered lost{};          // of connections that were let go in good order, and never went to the drive
};

// Of a generation whose connections live in a session that a controller reset does not end.
struct SessionStatus {
  std::string_view link;  // "live", "attaching", "probing"
  unsigned resumed = 0;   // the drive still had it after commands had failed
  unsigned lost = 0;      // it had not, or was silent for too long: every connection ended
};
// What the drive has counted in this session; nothing: the session was lost before it told.
using DriveCounters = std::optional<relay_v2::Counters>;

class Dialect : public PortClient {
 public:
  virtual ~Dialect() = default;

  // Starts a connection. An address this generation cannot express fails at once with a sentence;
  // everything else is told through the stream.
  virtual Result<StreamHandle> connect(const Endpoint& endpoint, StreamObserver* observer) = 0;

  // Makes the drive listen. REQUIRES: 1 <= backlog <= max_backlog. ENOTSUP with a sentence where the drive
  // cannot; everything else is told to the observer, maybe before this returns.
  virtual Result<ListenerHandle> listen(const Endpoint& where, uint32_t backlog, ListenerObserver* observer);

  // Asks the drive for its counters; `told` is called once, maybe before this returns. False: it has none, or
  // is not there.
  virtual bool ask_counters(std::function<void(const DriveCounters&)> told) {
    (void)told;
    return false;
  }

  // Nothing accepted is on its way any more: every stream that was let go is gone from here and the drive.
  virtual bool drained() const = 0;

  // --- the end of the program, when every handle was dropped. Nothing is opened any more. ---

  // What was accepted goes to the drive as before, but without a bound for each stream. Then the drive is
  // told that this was all.
  virtual void finish() = 0;
  virtual bool finished() const { return drained(); }
  // What was accepted and the drive does not have: of connections that were let go in good order.
  virtual Undelivered undelivered() const = 0;
  // What is left is dropped; its services see a reset where the dialect can tell it so.
  virtual void give_up() = 0;

  virtual std::string_view name() const = 0;
  virtual unsigned max_streams() const = 0;  // the drive carries at a time
  virtual std::optional<SessionStatus> session_status() const { return std::nullopt; }
  virtual Stream* find_stream(uint64_t id) const = 0;  // null: none
  virtual void for_each_stream(const std::function<void(const Stream&)>& visit) const = 0;
  const DialectCounters& counters() const { return counters_; }

 protected:
  DialectCounters counters_;
};

}  // namespace nvsock
