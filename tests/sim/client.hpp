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
    enough,         // writes all, reads `to_read` bytes, releases: for drives that cannot half-close
    after_writing,  // releases with the last write: what was accepted must arrive
    any_time,       // releases at some moment
    unread,         // writes and never reads, then releases
  } end = End::both;
  Clock::Duration patience{};  // any_time: until then
  uint64_t to_read = 0;        // enough
  // Notices after so long that its service has reset the connection, told or not; 0: waits to be told.
  Clock::Duration gives_up_after{};
};

// What a run knows of its drive and of the way there, and so what a program may be told.
class Conditions {
 public:
  // The link may have ended streams that were opened then.
  virtual bool link_failed(Clock::TimePoint opened) const = 0;
  struct Told {
    uint16_t port;
    int error;
    bool established;
    Clock::Duration after;  // since connect()
  };
  // An error that the program's service is not the cause of.
  virtual bool explains(const Told& told) const = 0;
  // connect() says this errno: is there a reason? And is there no use in trying again?
  virtual bool explains_refusal(int error) const = 0;
  virtual bool hopeless(int error) const = 0;
  // The program lets go of this stream now, whose service has got all that was written or not.
  struct Released {
    uint64_t stream;
    bool established;
    bool complete;
  };
  virtual void on_release(const Released&) {}

 protected:
  ~Conditions() = default;
};

class Client final : private StreamObserver {
 public:
  Client(VirtualClock& clock, Random random, Story& story, Dialect& dialect, const SimServices& services,
         BufferPool& buffers, uint16_t port, const Plan& plan, Conditions& conditions);

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
  // Between attempts while all of the drive is taken, which in the worst case is for weeks.
  static constexpr Clock::Duration first_try = std::chrono::milliseconds(50),
                                   last_try = std::chrono::hours(1);

  void on_stream_change(Stream& stream) override;
  void begin();
  void act();
  void write_some();
  void read_some();
  void write_later();
  void read_later();
  Clock::Duration pause(Clock::Duration most);
  void look_for_reset();
  void try_again(Clock::Duration after);
  bool has_enough() const;
  bool link_failed() const { return conditions_.link_failed(opened_at_); }
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
  Conditions& conditions_;
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
  StreamHandle stream_;
  uint64_t written_ = 0, read_ = 0;
  bool acting_ = false, again_ = false;
  bool write_waits_ = false, read_waits_ = false;
  bool awaits_ = false;
  bool answered_ = false, established_ = false, failed_ = false, released_early_ = false, done_ = false;
  Clock::TimePoint opened_at_{}, released_at_{};
  Clock::Duration next_try_ = first_try;
};

}  // namespace nvsock::sim
