#include "libnvsock/host/stream_v1.hpp"

#include <algorithm>
#include <cstring>
#include <string>

namespace nvsock {
namespace {

using namespace std::chrono_literals;

// The close command and the reads it ends are answered at once by a drive that answers at all; the
// exception is the read that a peer's reset leaves behind for ever.
constexpr auto abandon_after = 2s;

// An open that failed without a cause after this long failed by silence: Linux needs 127 s for that, and
// 3 s for an unreachable host.
constexpr auto silence = 20s;

std::string hex_status(uint16_t value) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (int shift = 8; shift >= 0; shift -= 4) out += digits[(value >> shift) & 0xf];
  return out + "h";
}

bool device_is_gone(int error) {
  return error == ENODEV || error == ENXIO;
}

}  // namespace

StreamV1::StreamV1(DialectV1& dialect, uint64_t id, const Endpoint& peer, StreamObserver* observer)
    : Stream(id, peer, observer), dialect_(dialect), timer_(dialect.clock_.make_timer()) {
  arm(dialect_.options_.connect_timeout, &StreamV1::connect_expired);
}

CommandV1& StreamV1::make_command(CommandV1::Kind kind) {
  ++in_flight_;
  return dialect_.make_command(id_, kind);
}

// --- opening ---

void StreamV1::start_open() {
  phase_ = Phase::opening;
  opening_since_ = dialect_.clock_.now();
  ++dialect_.counters_.opens;
  ++dialect_.counters_.streams_now;
  CommandV1& command = make_command(CommandV1::Kind::open);
  command.cdw10 = relay_v1::function::open;
  relay_v1::encode_open(command.data, peer_.host, std::to_string(peer_.port));
  dialect_.submit(command);
  dialect_.port_.ring();
}

void StreamV1::on_open_done(CommandV1& command) {
  const Completion& completion = command.completion;
  if (completion.ok()) {
    descriptor_ = relay_v1::load_u32(command.data);
    phase_ = Phase::open;
    if (state_ == State::connecting && !released_) {  // else it was given up meanwhile
      timer_->disarm();
      state_ = State::established;
      fetch();
    }
    close_when_sent();
    return;
  }

  phase_ = Phase::closed;
  ++dialect_.counters_.open_failures;
  int code = completion.error != 0 ? completion.error : status::errno_of(completion.status);
  std::string why;
  if (code == 0) {
    why = " (status " + hex_status(completion.status) + ", which names no cause)";
    if (dialect_.counters_.streams_now > dialect_.options_.relays) {
      code = ENFILE;
      why += "; all " + std::to_string(dialect_.options_.relays) + " relays of the drive are in use";
    } else {
      code = dialect_.clock_.now() - opening_since_ > silence ? ETIMEDOUT : ECONNREFUSED;
    }
  }
  dialect_.log(LogLevel::info, "cannot connect to " + peer_.text() + ": " + std::strerror(code) + why);
  dialect_.relay_freed();
  if (device_is_gone(completion.error)) dialect_.device_lost(completion.error);
  if (state_ == State::connecting) fail(code);
}

void StreamV1::connect_expired() {
  if (state_ != State::connecting) return;  // it failed before
  dialect_.log(LogLevel::info, "no answer to the connection to " + peer_.text() + " within " +
                                   std::to_string(dialect_.options_.connect_timeout.count()) + " s");
  break_off(ETIMEDOUT);
  notify();
}

// --- moving bytes ---

void StreamV1::fetch() {
  if (phase_ != Phase::open || receive_ended_) return;
  const unsigned wanted = std::min(reads_wanted_, dialect_.traits_.max_reads_per_stream);
  const unsigned before = reads_;
  // Counted in pages, not bytes: a read of one byte keeps a page as well.
  while (reads_ < wanted && received_.slices() + reads_ < receive_pages) {
    CommandV1& command = make_command(CommandV1::Kind::read);
    command.cdw10 = relay_v1::function::comm;
    command.cdw11 = relay_v1::comm_read;
    command.cdw13 = descriptor_;
    command.may_block = true;
    (oldest_read_ == nullptr ? oldest_read_ : newest_read_->newer) = &command;
    newest_read_ = &command;
    ++reads_;
    dialect_.submit(command);
  }
  if (reads_ == before) return;
  heard_ = dialect_.clock_.now();
  dialect_.port_.ring();
}

void StreamV1::send_queued() {
  if (phase_ != Phase::open) return;
  const unsigned limit = dialect_.traits_.ordered ? most_writes : 1;
  bool any = false;
  while (!queued_.empty() && writes_ < limit) {
    CommandV1& command = make_command(CommandV1::Kind::write);
    const Slice& front = queued_.front();
    const uint32_t size = std::min(front.size, relay_v1::max_write);
    command.slice = {front.buffer, front.data, size};
    command.data = const_cast<uint8_t*>(front.data);
    command.cdw10 = relay_v1::function::comm;
    command.cdw11 = relay_v1::comm_write;
    command.cdw12 = size;
    command.cdw13 = descriptor_;
    queued_.consume_front(size);
    ++writes_;
    dialect_.submit(command);
    any = true;
  }
  if (any) dialect_.port_.ring();
}

void StreamV1::on_done(CommandV1& command) {
  --in_flight_;
  switch (command.kind) {
    case CommandV1::Kind::open:
      on_open_done(command);
      dialect_.recycle(command);
      break;
    case CommandV1::Kind::read:
      on_read_done(command);
      break;
    case CommandV1::Kind::write:
      --writes_;
      on_write_done(command);
      dialect_.recycle(command);
      break;
    case CommandV1::Kind::close:
      // Succeeds or names a descriptor the drive no longer knows: either way the relay is free.
      close_pending_ = false;
      --dialect_.closing_;
      dialect_.relay_freed();
      dialect_.recycle(command);
      break;
  }
  on_commands_gone();
  dialect_.changed(*this);
}

void StreamV1::on_read_done(CommandV1& command) {
  command.arrived = true;
  while (oldest_read_ != nullptr && oldest_read_->arrived) {
    CommandV1& oldest = *oldest_read_;
    oldest_read_ = oldest.newer;
    --reads_;
    deliver(oldest);
    dialect_.recycle(oldest);
  }
}

void StreamV1::deliver(CommandV1& command) {
  if (phase_ != Phase::open || broken_) return;  // the end of the relay, not of the stream
  const Completion& completion = command.completion;
  if (!completion.ok()) {
    if (device_is_gone(completion.error)) return dialect_.device_lost(completion.error);
    const int named = completion.error == 0 ? status::errno_of(completion.status) : 0;
    return break_off(named != 0 ? named : ECONNRESET);
  }
  const uint32_t size = relay_v1::load_u32(command.data);
  if (size > relay_v1::max_read) {
    dialect_.log(LogLevel::error, "the drive answered a read with the length " + std::to_string(size) +
                                      ", more than " + std::to_string(relay_v1::max_read));
    return break_off(EPROTO);
  }
  if (size == 0) {
    receive_ended_ = true;
    return close_when_sent();
  }
  if (receive_ended_) return;  // shutdown_read(): what still comes is dropped, as TCP does
  ++filled_;
  bytes_received_ += size;
  dialect_.counters_.bytes_received += size;
  const uint8_t* bytes = command.slice.data + relay_v1::read_header;
  received_.push({std::move(command.slice.buffer), bytes, size});
}

void StreamV1::on_write_done(CommandV1& command) {
  const Completion& completion = command.completion;
  if (broken_) return;
  if (!completion.ok()) {
    if (device_is_gone(completion.error)) return dialect_.device_lost(completion.error);
    // As Linux has it: a reset after the peer's end is EPIPE, before it ECONNRESET (tcp_reset).
    const int named = completion.error == 0 ? status::errno_of(completion.status) : 0;
    return break_off(named != 0 ? named : receive_ended_ ? EPIPE : ECONNRESET);
  }
  unsent_ -= command.slice.size;
  bytes_sent_ += command.slice.size;
  dialect_.counters_.bytes_sent += command.slice.size;
  send_queued();
  close_when_sent();
}

void StreamV1::on_batch_end() {
  if (filled_ > 0) {
    if (reads_ == 0) {
      reads_wanted_ *= 2;
    } else if (filled_ * 8 < reads_wanted_) {
      reads_wanted_ -= reads_wanted_ / 4;
    }
    reads_wanted_ = std::clamp(reads_wanted_, least_reads, receive_pages);
    filled_ = 0;
  }
  if (!released_) return notify();  // may release the stream: nothing may follow
  if (phase_ == Phase::closed) dialect_.destroy(*this);
}

// --- ending ---

void StreamV1::break_off(int code) {
  fail(code);
  if (phase_ == Phase::waiting) phase_ = Phase::closed;
  close_when_sent();
}

void StreamV1::abort(int code) {
  if (broken_) return;
  DialectV1& dialect = dialect_;
  dialect.changed(*this);
  break_off(code);  // may be the end of it
  dialect.on_batch_end();
}

void StreamV1::release() {
  observer_ = nullptr;
  released_ = true;
  received_.clear();
  switch (phase_) {
    case Phase::waiting:
    case Phase::closed:
      return dialect_.destroy(*this);
    case Phase::opening:
      return arm(dialect_.options_.connect_timeout, &StreamV1::abandon);
    case Phase::open:
      if (unsent_ > 0) arm(dialect_.options_.drain_timeout, &StreamV1::drain_expired);
      return close_when_sent();
    case Phase::closing:
      return;
  }
}

void StreamV1::close_when_sent() {
  const bool unwanted = released_ || (send_ended_ && receive_ended_);
  if (phase_ == Phase::open && unwanted && unsent_ == 0) send_close();
}

void StreamV1::send_close() {
  phase_ = Phase::closing;
  close_pending_ = true;
  ++dialect_.closing_;
  ++in_flight_;
  dialect_.submit(dialect_.make_close(id_, descriptor_));
  arm(abandon_after, &StreamV1::abandon);
  dialect_.port_.ring();
}

void StreamV1::drain_expired() {
  dialect_.log(LogLevel::warning, std::to_string(unsent_) + " bytes for " + peer_.text() +
                                      " were not taken by the drive in time and are dropped");
  queued_.clear();
  send_close();
}

void StreamV1::on_commands_gone() {
  if (phase_ == Phase::closing && in_flight_ == 0) phase_ = Phase::closed;
  if (phase_ == Phase::closed) timer_->disarm();
}

void StreamV1::abandon() {
  phase_ = Phase::closed;
  for (CommandV1* read = oldest_read_; read != nullptr;) {
    CommandV1* newer = read->newer;
    if (read->arrived) dialect_.recycle(*read);  // held back for one that never came
    read = newer;
  }
  oldest_read_ = newest_read_ = nullptr;
  dialect_.counters_.abandoned_now += in_flight_;
  if (in_flight_ > 0) {
    dialect_.log(LogLevel::warning, std::to_string(in_flight_) + " commands of the connection to " +
                                        peer_.text() + " never completed; their memory stays with the drive");
  }
  in_flight_ = 0;
  DialectV1& dialect = dialect_;
  const bool close_lost = std::exchange(close_pending_, false);
  if (released_) dialect.destroy(*this);
  if (close_lost) dialect.close_given_up();
}

void StreamV1::arm(Clock::Duration after, void (StreamV1::*expired)()) {
  timer_->arm(after, [this, expired] { (this->*expired)(); });
}

}  // namespace nvsock
