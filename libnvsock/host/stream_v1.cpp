#include "libnvsock/host/stream_v1.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "libnvsock/socket/program_errno.hpp"

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

// The errno of a command that failed: the drive's, or the port's; 0: none is named.
uint32_t named(const Completion& failed) {
  return static_cast<uint32_t>(failed.error != 0 ? failed.error : status::errno_of(failed.status));
}

}  // namespace

StreamV1::StreamV1(const StreamOwnerV1::Shared& shared, uint64_t id, const Endpoint& peer,
                   StreamObserver* observer)
    : Stream(id, peer, observer), shared_(shared), timer_(shared.clock.make_timer()) {
  arm(shared_.connect_timeout, &StreamV1::connect_expired);
}

void StreamV1::submit(CommandV1& command) {
  ++in_flight_;
  shared_.commands.submit(command);
}

// --- opening ---

void StreamV1::start_open() {
  phase_ = Phase::opening;
  opening_since_ = shared_.clock.now();
  ++shared_.counters.opens;
  shortages_before_ = owner().shortages();
  owner().relay_taken();
  submit(shared_.commands.make_open(id_, peer_));
  shared_.commands.ring();
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
  ++shared_.counters.open_failures;
  const bool full = owner().shortages() > shortages_before_;
  const bool silent = shared_.clock.now() - opening_since_ > silence;
  const int code = opening_errno(named(completion), full, silent);
  std::string why;
  if (named(completion) == 0) {
    why = " (status " + hex_status(completion.status) + ", which names no cause)";
    if (full) why += "; all " + std::to_string(shared_.relays) + " relays of the drive are in use";
  }
  log(LogLevel::debug, "cannot connect to " + peer_.text() + ": " + std::strerror(code) + why);
  owner().relay_freed();
  if (means_drive_gone(completion.error)) owner().drive_gone(completion.error);
  if (state_ == State::connecting) fail(code);
}

void StreamV1::connect_expired() {
  if (state_ != State::connecting) return;  // it failed before
  log(LogLevel::debug, "no answer to the connection to " + peer_.text() + " within " +
                           std::to_string(shared_.connect_timeout.count()) + " s");
  end(file_errno(Cause::timed_out));
  owner().settle();
}

// --- moving bytes ---

void StreamV1::fetch() {
  if (phase_ != Phase::open || receive_ended_) return;
  const unsigned wanted = std::min(reads_wanted_, shared_.commands.traits().max_reads_per_stream);
  const unsigned before = reads_;
  // Counted in pages, not bytes: a read of one byte keeps a page as well.
  while (reads_ < wanted && received_.slices() + reads_ < receive_pages) {
    if (!shared_.commands.room_for_read()) {
      owner().list_starved(*this);
      break;
    }
    CommandV1& command = shared_.commands.make_read(id_, descriptor_);
    (oldest_read_ == nullptr ? oldest_read_ : newest_read_->newer) = &command;
    newest_read_ = &command;
    ++reads_;
    submit(command);
  }
  if (reads_ == before) return;
  heard_ = shared_.clock.now();
  shared_.commands.ring();
}

void StreamV1::send_queued() {
  if (phase_ != Phase::open) return;
  const unsigned limit = shared_.commands.traits().ordered ? most_writes : 1;
  bool any = false;
  while (!queued_.empty() && writes_ < limit) {
    const Slice& front = queued_.front();
    const uint32_t size = std::min(front.size, relay_v1::max_write);
    CommandV1& command = shared_.commands.make_write(id_, descriptor_, {front.buffer, front.data, size});
    queued_.consume_front(size);
    ++writes_;
    submit(command);
    any = true;
  }
  if (any) shared_.commands.ring();
}

void StreamV1::on_done(CommandV1& command) {
  --in_flight_;
  switch (command.kind) {
    case CommandV1::Kind::open:
      on_open_done(command);
      shared_.commands.recycle(command);
      break;
    case CommandV1::Kind::read:
      on_read_done(command);
      break;
    case CommandV1::Kind::write:
      --writes_;
      on_write_done(command);
      shared_.commands.recycle(command);
      break;
    case CommandV1::Kind::close:
      // Succeeds or names a descriptor the drive no longer knows: either way the relay is free.
      close_pending_ = false;
      owner().close_done();
      shared_.commands.recycle(command);
      break;
  }
  on_commands_gone();
  owner().list_changed(*this);
}

void StreamV1::on_read_done(CommandV1& command) {
  command.arrived = true;
  while (oldest_read_ != nullptr && oldest_read_->arrived) {
    CommandV1& oldest = *oldest_read_;
    oldest_read_ = oldest.newer;
    --reads_;
    deliver(oldest);
    shared_.commands.recycle(oldest);
  }
}

void StreamV1::deliver(CommandV1& command) {
  if (phase_ != Phase::open || broken_) return;  // the end of the relay, not of the stream
  const Completion& completion = command.completion;
  if (!completion.ok()) {
    if (means_drive_gone(completion.error)) return owner().drive_gone(completion.error);
    return break_off(ending_errno(completion.error == 0 ? named(completion) : 0, receive_ended_));
  }
  const uint32_t size = relay_v1::load_u32(command.data);
  if (size > relay_v1::max_read) {
    log(LogLevel::error, "the drive answered a read with the length " + std::to_string(size) +
                             ", more than " + std::to_string(relay_v1::max_read));
    return break_off(file_errno(Cause::protocol_broken));
  }
  if (size == 0) {
    receive_ended_ = true;
    return close_when_sent();
  }
  if (receive_ended_) return;  // shutdown_read(): what still comes is dropped, as TCP does
  ++filled_;
  bytes_received_ += size;
  shared_.counters.bytes_received += size;
  const uint8_t* bytes = command.slice.data + relay_v1::read_header;
  received_.push({std::move(command.slice.buffer), bytes, size});
}

void StreamV1::on_write_done(CommandV1& command) {
  const Completion& completion = command.completion;
  if (broken_) return;
  if (!completion.ok()) {
    if (means_drive_gone(completion.error)) return owner().drive_gone(completion.error);
    return break_off(ending_errno(completion.error == 0 ? named(completion) : 0, receive_ended_));
  }
  unsent_ -= command.slice.size;
  bytes_sent_ += command.slice.size;
  shared_.counters.bytes_sent += command.slice.size;
  send_queued();
  close_when_sent();
}

void StreamV1::tell() {
  if (filled_ > 0) {
    if (reads_ == 0) {
      reads_wanted_ *= 2;
    } else if (filled_ * 8 < reads_wanted_) {
      reads_wanted_ -= reads_wanted_ / 4;
    }
    reads_wanted_ = std::clamp(reads_wanted_, least_reads, receive_pages);
    filled_ = 0;
  }
  notify();  // may release the stream: nothing may follow
}

// --- ending ---

void StreamV1::break_off(int code) {
  fail(code);
  if (phase_ == Phase::waiting) phase_ = Phase::closed;
  close_when_sent();
}

void StreamV1::end(int code) {
  owner().list_changed(*this);
  break_off(code);
}

void StreamV1::abort(int code) {
  if (broken_) return;
  const StreamOwnerV1::Shared& shared = shared_;
  end(code);  // may be the end of it
  shared.owner.settle();
}

void StreamV1::release() {
  observer_ = nullptr;
  released_ = true;
  received_.clear();
  switch (phase_) {
    case Phase::waiting:
    case Phase::closed:
      return owner().destroy(*this);
    case Phase::opening:
      return arm(shared_.connect_timeout, &StreamV1::abandon);
    case Phase::open:
      if (unsent_ > 0) arm(drain_bound(shared_.drain_timeout), &StreamV1::drain_expired);
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
  owner().close_sent();
  submit(shared_.commands.make_close(id_, descriptor_));
  arm(abandon_after, &StreamV1::abandon);
  shared_.commands.ring();
}

void StreamV1::drain_expired() {
  log(LogLevel::warning, std::to_string(unsent_) + " bytes for " + peer_.text() +
                             " were not taken by the drive in time and are dropped");
  give_up();
}

void StreamV1::finish() {
  if (phase_ == Phase::open && released_ && !cut_) timer_->disarm();
}

void StreamV1::give_up() {
  if (phase_ != Phase::open) return;
  shared_.counters.lost.add(undelivered());
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
    if (read->arrived) shared_.commands.recycle(*read);  // held back for one that never came
    read = newer;
  }
  oldest_read_ = newest_read_ = nullptr;
  shared_.counters.abandoned_now += in_flight_;
  if (in_flight_ > 0) {
    log(LogLevel::warning, std::to_string(in_flight_) + " commands of the connection to " + peer_.text() +
                               " never completed; their memory stays with the drive");
  }
  in_flight_ = 0;
  const StreamOwnerV1::Shared& shared = shared_;
  const bool close_lost = std::exchange(close_pending_, false);
  if (released_) shared.owner.destroy(*this);
  if (close_lost) shared.owner.close_given_up();
}

void StreamV1::arm(Clock::Duration after, void (StreamV1::*expired)()) {
  timer_->arm(after, [this, expired] { (this->*expired)(); });
}

}  // namespace nvsock
