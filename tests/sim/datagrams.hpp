// Flows of datagrams: a service that sends back what it gets, a program on the host, and the account of every
// datagram between them. Each says its number and has the size and the bytes that belong to it.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "csd/sockets/service.hpp"
#include "libnvsock/host/dialect.hpp"
#include "tests/sim/pattern.hpp"
#include "tests/sim/random.hpp"
#include "tests/sim/story.hpp"
#include "tests/sim/virtual_clock.hpp"

namespace nvsock::sim {

struct FlowPlan {
  unsigned count = 0;  // datagrams to send
  size_t largest = 0;  // of them
  uint64_t seed = 0;
  Clock::Duration write_pause{}, read_pause{}, echo_pause{};  // at most, between two
  Clock::Duration silence{};                                  // once, in the middle
  unsigned busy = 0;     // per mille of sends: the service's socket has no room for a moment
  unsigned refused = 0;  // per mille: nobody listens
  size_t room = 65536;   // of the service's buffers; what does not fit is dropped
};

struct FlowRecord {
  unsigned connects = 0, ended = 0;  // flows of the drive
  uint64_t got = 0;                  // by the service
  uint64_t refused = 0;              // found nobody
  uint64_t dropped = 0;              // by its receive buffer
  uint64_t offered = 0;              // sent back, and taken by the receive buffer of the drive's socket
};

// The datagram of a number: its bytes, at least 8.
std::vector<uint8_t> datagram_of(const FlowPlan& plan, uint64_t number);
// Its number, if it is one of the plan's.
bool number_of(const FlowPlan& plan, std::span<const uint8_t> datagram, uint64_t& number);

class FlowService final : public csd::Service {
 public:
  FlowService(VirtualClock& clock, Random random, Story& story, const FlowPlan& plan, FlowRecord& record,
              unsigned& alive, Observer& observer);
  ~FlowService() override {
    --alive_count_;
    ++record_.ended;
  }

  ssize_t receive(std::span<uint8_t> into, bool& datagram) override;
  ssize_t send(std::span<const uint8_t> from) override;
  void await_readable() override;
  void await_writable() override;
  void shut_down_sending() override { story_.violation("a flow is shut down"); }
  void close_in_order() override {}
  relay_v2::Opened addresses() const override { return {}; }

 private:
  using Datagram = std::vector<uint8_t>;
  void echo();
  void wake();

  VirtualClock& clock_;
  Random random_;
  Story& story_;
  const FlowPlan& plan_;
  FlowRecord& record_;
  unsigned& alive_count_;
  Observer& observer_;
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
  std::deque<Datagram> in_, out_;
  size_t in_bytes_ = 0, out_bytes_ = 0;
  uint64_t next_ = 0;  // the least number that may come
  bool echoing_ = false, error_ = false;
  bool awaiting_readable_ = false, waking_ = false;
};

class FlowClient final : private StreamObserver {
 public:
  FlowClient(VirtualClock& clock, Random random, Story& story, Dialect& dialect, uint16_t port,
             const FlowPlan& plan, const FlowRecord& record, size_t sendable,
             std::function<bool(Clock::TimePoint)> excuse);

  void start();
  bool done() const { return done_; }
  std::string state() const;
  // Once everything has settled. What came back is missing `lost` datagrams; false: that cannot be known,
  // because a session or a flow was lost.
  bool account(uint64_t& lost);

 private:
  void on_stream_change(Stream& stream) override;
  void act();
  void write_some();
  void read_some();
  void look_for_silence();
  void told(int error);
  void release();
  Clock::Duration pause(Clock::Duration most) {
    return Clock::Duration(random_.below(static_cast<uint64_t>(most.count()) + 1));
  }

  VirtualClock& clock_;
  Random random_;
  Story& story_;
  Dialect& dialect_;
  const uint16_t port_;
  const FlowPlan plan_;
  const FlowRecord& record_;
  const size_t sendable_;  // larger ones must be refused
  const std::function<bool(Clock::TimePoint)> excuse_;
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
  StreamHandle stream_;
  uint64_t number_ = 0;  // of the next to send
  uint64_t sent_ = 0, came_ = 0, errors_ = 0;
  uint64_t next_ = 0;  // the least number that may come
  uint64_t seen_ = 0;  // came_ when look_for_silence() looked last
  bool acting_ = false, again_ = false, writing_later_ = false, reading_later_ = false;
  bool established_ = false, failed_ = false, flow_ended_ = false, silent_ = false, done_ = false;
  Clock::TimePoint opened_at_{};
};

}  // namespace nvsock::sim
