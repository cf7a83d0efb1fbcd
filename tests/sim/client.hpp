// A program on the host: one stream, written and read at moments of its own, and a model of what must come of
// it.
#pragma once

#include <memory>
#include <vector>

#include "libnvsock/host/dialect.hpp"
#include "tests/sim/pattern.hpp"
#include "tests/sim/random.hpp"
#include "tests/sim/services.hpp"

namespace nvsock::sim {

struct Plan {
  uint64_t to_send = 0;
  size_t write_size = 65536, read_size = 65536;  // at most, at a time
  Clock::Duration write_pause{}, read_pause{};   // at most, between two
  unsigned long_pauses = 0;                      // per mille of pauses: seconds instead
  enum class End {
    both,           // ends its direction, reads to the end, releases
    after_writing,  // releases with the last write: what was accepted must arrive
    any_time,       // releases at some moment
    unread,         // writes and never reads, then releases
  } end = End::both;
  Clock::Duration patience{};  // any_time: until then
};

class Client final : private StreamObserver {
 public:
  // What the run knows: whether the link may have ended streams that were opened then.
  using Excuse = std::function<bool(Clock::TimePoint opened)>;

  Client(VirtualClock& clock, Random random, Story& story, Dialect& dialect, const SimServices& services,
         BufferPool& buffers, uint16_t port, const Plan& plan, Excuse excuse);

  void start();
  // Instead, a program inside the drive connects, again if need be, until accept() gives its stream.
  // `faults`: there may be reasons why a first attempt fails.
  void await_program(SimServices& services, bool faults);
  bool awaits() const { return awaits_; }
  void accept(StreamHandle& stream);
  bool done() const { return done_; }
  std::string state() const;
  // Once everything has settled. `dropped`: the drive may have closed services without a word.
  void check_delivery(bool dropped);

 private:
  void on_stream_change(Stream& stream) override;
  void begin();
  void act();
  void write_some();
  void read_some();
  void write_later();
  void read_later();
  Clock::Duration pause(Clock::Duration most);
  bool link_failed() const { return excuse_(opened_at_); }
  void failed(int error);
  void ended();
  void release(const char* why);

  VirtualClock& clock_;
  Random random_;
  Story& story_;
  Dialect& dialect_;
  const SimServices& services_;
  BufferPool& buffers_;
  const uint16_t port_;
  const Plan plan_;
  const Excuse excuse_;
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
  StreamHandle stream_;
  uint64_t written_ = 0, read_ = 0;
  bool acting_ = false, again_ = false;
  bool write_waits_ = false, read_waits_ = false;
  bool awaits_ = false;
  bool established_ = false, failed_ = false, released_early_ = false, done_ = false;
  Clock::TimePoint opened_at_{}, released_at_{};
};

}  // namespace nvsock::sim
