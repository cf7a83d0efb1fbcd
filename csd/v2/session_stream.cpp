#include "csd/v2/session_stream.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

namespace nvsock::csd {

using relay_v2::BatchWriter;
using relay_v2::Frame;
using relay_v2::FrameType;

namespace {

// Less room than this in a batch is not worth a frame of bytes.
constexpr size_t least_piece = 512;

size_t datagram_credit(size_t size) {
  return size + relay_v2::datagram_cost;
}

// Sent in vain, as natively: the flow goes on, and the program is not told.
bool passing(int error) {
  return error == EMSGSIZE || error == ENOBUFS || error == ENOMEM || error == EPERM || error == EINTR;
}

}  // namespace

SessionStream::SessionStream(StreamOwner& owner, uint32_t number, const Terms& terms)
    : Channel(number),
      owner_(&owner),
      window_(terms.window),
      largest_window_(terms.largest_window),
      credit_(terms.credit),
      datagram_(terms.datagram) {}

SessionStream::~SessionStream() {
  answered();
}

void SessionStream::connecting(std::unique_ptr<Service> service) {
  service_ = std::move(service);
}

void SessionStream::accepted(std::unique_ptr<Service> service, SessionListener& by) {
  service_ = std::move(service);
  listener_ = &by;
  listener_number_ = by.number();
  by.joined(*this);
  open_ = true;
  granted_ = window_;
  accepted_due_ = true;
  owner_->list_control(*this);
  await_readable();
}

void SessionStream::answered() {
  if (listener_ != nullptr) std::exchange(listener_, nullptr)->left(*this);
}

// --- events of the service; owner_->settled() is the last act of each ---

void SessionStream::on_connected(int error) {
  if (error != 0) {
    ++owner_->counters().opens_refused;
    fail(error);
  } else {
    ++owner_->counters().streams_opened;
    open_ = true;
    granted_ = window_;
    opened_due_ = true;
    owner_->list_control(*this);
    await_readable();
  }
  owner_->settled(*this);
}

void SessionStream::on_readable() {
  awaiting_readable_ = false;
  if (lingering_) return;
  readable_ = true;
  list_if_ready();
  owner_->settled(*this);
}

void SessionStream::on_writable() {
  awaiting_writable_ = false;
  drain();
  owner_->settled(*this);
}

void SessionStream::await_readable() {
  readable_ = false;
  if (awaiting_readable_) return;
  awaiting_readable_ = true;
  service_->await_readable();
}

// Datagrams are read without credit too: those beyond it are dropped, as section 7 has it.
void SessionStream::list_if_ready() {
  if (service_ && readable_ && !drive_ended_ && !lingering_ && (datagram_ || credit_ > 0))
    owner_->list_ready(*this);
}

// --- from the host (section 7) ---

bool SessionStream::take(const Frame& frame) {
  if (reset_due_ && !service_) {
    // It is over here, and the host does not know yet; nor need it, when this ends the stream for it, too.
    done_ = frame.type == FrameType::fin && drive_ended_;
    return true;
  }
  // Opening, as far as the host knows: it sends RESET alone.
  if (!open_ || opened_due_ || accepted_due_) return false;
  switch (frame.type) {
    case FrameType::data:
      return take_data(frame.payload);
    case FrameType::datagram:
      return take_datagram(frame.payload);
    case FrameType::window:
      return take_window(frame.value);
    case FrameType::fin:
      return take_fin();
    default:
      return false;
  }
}

bool SessionStream::take_window(uint32_t value) {
  if (value > relay_v2::max_window - credit_) return false;
  credit_ += value;
  answered();
  list_if_ready();
  return true;
}

bool SessionStream::take_data(std::span<const uint8_t> bytes) {
  if (datagram_ || host_ended_ || bytes.size() > granted_) return false;
  granted_ -= static_cast<uint32_t>(bytes.size());
  if (broken_ != 0) return true;
  owner_->counters().bytes_to_services += bytes.size();
  while (queue_.empty() && !bytes.empty()) {
    const ssize_t sent = service_->send(bytes);
    if (sent < 0 && sent != -EAGAIN) {
      sending_failed(static_cast<int>(-sent));
      return true;
    }
    if (sent <= 0) break;
    const auto part = std::min(static_cast<size_t>(sent), bytes.size());
    bytes = bytes.subspan(part);
    taken_by_service(part);
  }
  if (bytes.empty()) return true;
  queue_.append(bytes);
  if (!std::exchange(awaiting_writable_, true)) service_->await_writable();
  return true;
}

bool SessionStream::take_datagram(std::span<const uint8_t> datagram) {
  if (!datagram_ || datagram_credit(datagram.size()) > granted_) return false;
  granted_ -= static_cast<uint32_t>(datagram_credit(datagram.size()));
  quiet_rounds_ = 0;
  owner_->counters().bytes_to_services += datagram.size();
  if (queue_.empty() && send_datagram(datagram)) return true;
  if (!service_) return true;  // sending ended the flow
  queue_.append_datagram(datagram);
  if (!std::exchange(awaiting_writable_, true)) service_->await_writable();
  return true;
}

bool SessionStream::take_fin() {
  if (datagram_ || host_ended_) return false;
  host_ended_ = true;
  window_due_ = false;  // the host has no use for credit any more
  if (queue_.empty()) {
    end_sending();
  } else {
    done_ = drive_ended_ && !fin_due_;  // what is left is delivered by the linger list
  }
  return true;
}

// Takes the datagram off the host's credit whatever becomes of it, unless there is no room.
bool SessionStream::send_datagram(std::span<const uint8_t> datagram) {
  ssize_t sent = service_->send(datagram);
  if (sent == -ECONNREFUSED) {
    // The socket told of an earlier datagram, and took this one not. Natively this send would fail; but
    // its program was told that it did not.
    reset_due_ = true;
    reset_error_ = ECONNREFUSED;
    owner_->list_control(*this);
    sent = service_->send(datagram);
  }
  if (sent == -EAGAIN) return false;
  taken_by_service(datagram_credit(datagram.size()));
  const int error = sent < 0 ? static_cast<int>(-sent) : 0;
  if (error != 0 && error != ECONNREFUSED && !passing(error)) fail(error);
  return true;
}

void SessionStream::drain() {
  if (!service_ || awaiting_writable_) return;
  while (!queue_.empty()) {
    if (datagram_) {
      if (!send_datagram(queue_.front_datagram())) break;
      if (!service_) return;
      queue_.pop_datagram();
      continue;
    }
    const auto bytes = queue_.front();
    const ssize_t sent = service_->send(bytes);
    if (sent < 0 && sent != -EAGAIN) return sending_failed(static_cast<int>(-sent));
    if (sent <= 0) break;
    const auto part = std::min(static_cast<size_t>(sent), bytes.size());
    queue_.consume(part);
    taken_by_service(part);
  }
  if (!queue_.empty()) {
    awaiting_writable_ = true;
    service_->await_writable();
    return;
  }
  if (lingering_) {
    service_->close_in_order();
    done_ = true;
  } else if (host_ended_) {
    end_sending();
  } else if (returnable_ > 0) {  // the host may have stopped for this
    window_due_ = true;
    owner_->list_control(*this);
  }
}

// Credit goes back in large pieces: a frame for each would cost a command for each.
void SessionStream::taken_by_service(size_t cost) {
  returnable_ += static_cast<uint32_t>(cost);
  // With a small window half of it may not be enough for the largest datagram.
  const bool needs_large = datagram_ && window_ < 2 * datagram_credit(relay_v2::max_datagram) &&
                           granted_ < datagram_credit(relay_v2::max_datagram);
  if (lingering_ || host_ended_ || window_due_ || returnable_ == 0 ||
      (returnable_ < window_ / 2 && !needs_large)) {
    return;
  }
  window_due_ = true;
  owner_->list_control(*this);
}

void SessionStream::end_sending() {
  if (broken_ != 0) return;
  service_->shut_down_sending();
  done_ = drive_ended_ && !fin_due_;
}

// The service took no more. What it sent before may still be read, as a program on the spot could: so the
// stream ends when that was read, or cannot be.
void SessionStream::sending_failed(int error) {
  queue_.clear();
  done_ = lingering_;
  if (done_) return;
  broken_ = error == EPIPE ? ECONNRESET : error;
  if (drive_ended_ || credit_ == 0) return fail(broken_);
  readable_ = true;
  owner_->list_ready(*this);
}

void SessionStream::fail(int error) {
  service_.reset();
  stash_.reset();
  queue_.clear();
  done_ = lingering_;  // nobody is to be told
  if (done_) return;
  Link<SessionStream>::unlist();
  if (fin_due_) drive_ended_ = false;  // the host was not told
  opened_due_ = window_due_ = fin_due_ = false;
  reset_due_ = true;
  reset_error_ = error;
  owner_->list_control(*this);
}

bool SessionStream::linger(StreamOwner& owner) {
  answered();
  Link<SessionStream>::unlist();
  Link<Channel>::unlist();
  stash_.reset();
  lingering_ = true;
  done_ = false;  // until the queue is empty
  owner_ = &owner;
  if (!service_) return false;
  if (open_ && !queue_.empty()) return true;
  service_->close_in_order();
  return false;
}

// --- to the host ---

void SessionStream::write_window(BatchWriter& batch) {
  if (queue_.empty() && !datagram_) {  // a service that takes everything gets it in longer runs
    const uint32_t larger = std::max(window_, std::min(2 * window_, largest_window_));
    returnable_ += larger - window_;
    window_ = larger;
  }
  batch.append(FrameType::window, number(), returnable_, 0);
  granted_ += returnable_;
  returnable_ = 0;
  window_due_ = false;
}

bool SessionStream::write_control(BatchWriter& batch) {
  if (opened_due_) {
    if (!batch.fits(relay_v2::opened_size)) return false;
    encode(service_->addresses(), batch.append(FrameType::opened, number(), window_, relay_v2::opened_size));
    opened_due_ = false;
  }
  if (accepted_due_) {
    if (!batch.fits(relay_v2::accepted_size)) return false;
    const relay_v2::Accepted accepted{.listener = listener_number_,
                                      .addresses = service_ ? service_->addresses() : relay_v2::Opened{}};
    encode(accepted, batch.append(FrameType::accepted, number(), window_, relay_v2::accepted_size));
    accepted_due_ = false;
  }
  if (window_due_) {
    if (!batch.fits(0)) return false;
    write_window(batch);
  }
  if (fin_due_) {
    if (!batch.fits(0)) return false;
    batch.append(FrameType::fin, number(), 0, 0);
    fin_due_ = false;
    done_ = host_ended_;  // what is left is delivered by the linger list
  }
  if (reset_due_) {
    if (!batch.fits(0)) return false;
    batch.append(FrameType::reset, number(), static_cast<uint32_t>(reset_error_), 0);
    reset_due_ = false;
    done_ = !service_;  // otherwise a datagram flow, which goes on
  }
  return true;
}

SessionStream::Read SessionStream::read_into(BatchWriter& batch, size_t quantum, std::span<uint8_t> scratch) {
  return datagram_ ? read_datagrams(batch, quantum, scratch) : read_bytes(batch, quantum);
}

SessionStream::Read SessionStream::read_bytes(BatchWriter& batch, size_t quantum) {
  const BatchWriter before = batch;  // to go back to if nothing comes
  const size_t room = batch.room();
  if (room < least_piece && !batch.empty()) return Read::batch_full;
  const size_t size = std::min({room, quantum, size_t{credit_}});
  if (size == 0) return Read::later;
  bool datagram = false;
  const ssize_t received = service_->receive(batch.append(FrameType::data, number(), 0, size), datagram);
  if (received <= 0) {
    batch = before;
    if (received == -EAGAIN && broken_ == 0) {
      await_readable();
    } else if (received == 0 && broken_ == 0) {
      readable_ = false;
      drive_ended_ = fin_due_ = true;
      owner_->list_control(*this);
    } else {
      fail(broken_ != 0 ? broken_ : static_cast<int>(-received));
    }
    return Read::later;
  }
  const auto got = std::min(static_cast<size_t>(received), size);
  if (got < size) batch.shorten_last(got);
  credit_ -= static_cast<uint32_t>(got);
  owner_->counters().bytes_from_services += got;
  // A batch goes anyway: take some credit along.
  if (!host_ended_ && returnable_ > 0 && returnable_ >= window_ / 4 && batch.fits(0)) write_window(batch);
  if (broken_ != 0 && credit_ == 0) {
    fail(broken_);
    return Read::later;
  }
  if (credit_ == 0) return Read::later;  // readable_ stays: WINDOW lists it again
  if (got < size && broken_ == 0) {      // drained: do not ask just to hear EAGAIN
    await_readable();
    return Read::later;
  }
  return Read::more;
}

// --- datagrams ---

// Section 7: errno 0 tells that the flow was quiet.
void SessionStream::quiet_round(unsigned most) {
  if (open_ && !opened_due_ && service_ && quiet_rounds_++ == most) fail(0);
}

bool SessionStream::may_send(size_t datagram) {
  if (datagram_credit(datagram) <= credit_) return true;
  ++owner_->counters().datagrams_dropped;
  return false;
}

void SessionStream::sent_datagram(size_t size) {
  quiet_rounds_ = 0;
  credit_ -= static_cast<uint32_t>(datagram_credit(size));
  owner_->counters().bytes_from_services += size;
}

// False: no room in this batch, but in another.
bool SessionStream::write_datagram(BatchWriter& batch, std::span<const uint8_t> datagram) {
  if (!batch.fits(datagram.size())) {
    if (!batch.empty()) return false;
    ++owner_->counters().datagrams_dropped;  // larger than the buffer the host gave: no batch would hold it
    return true;
  }
  const auto payload = batch.append(FrameType::datagram, number(), 0, datagram.size());
  if (!payload.empty()) std::memcpy(payload.data(), datagram.data(), payload.size());
  sent_datagram(datagram.size());
  return true;
}

SessionStream::Read SessionStream::read_datagrams(BatchWriter& batch, size_t quantum,
                                                  std::span<uint8_t> scratch) {
  if (stash_) {
    if (may_send(stash_->size()) && !write_datagram(batch, *stash_)) return Read::batch_full;
    stash_.reset();
  }
  if (batch.room() < least_piece && !batch.empty()) return Read::batch_full;
  bool wrote = false;
  // What is dropped counts too, so that a flood without credit ends.
  for (size_t moved = 0; moved < quantum;) {
    const BatchWriter before = batch;
    const bool direct = batch.fits(relay_v2::max_datagram);
    const auto into =
        direct ? batch.append(FrameType::datagram, number(), 0, relay_v2::max_datagram) : scratch;
    bool datagram = false;
    const ssize_t received = service_->receive(into, datagram);
    const auto size = static_cast<size_t>(std::max<ssize_t>(received, 0));
    if (received < 0 || !datagram || size > into.size() || !may_send(size)) batch = before;
    if (received == -EMSGSIZE) {
      ++owner_->counters().datagrams_dropped;
      moved += relay_v2::max_datagram;
      continue;
    }
    if (received < 0) {
      receiving_failed(static_cast<int>(-received));
      return Read::later;
    }
    if (!datagram || size > into.size()) {
      fail(EIO);  // no datagram service does that
      return Read::later;
    }
    moved += datagram_credit(size);
    if (datagram_credit(size) > credit_) continue;
    wrote = true;
    if (direct) {
      batch.shorten_last(size);
      sent_datagram(size);
    } else if (!write_datagram(batch, scratch.first(size))) {
      stash_ = std::make_unique<std::vector<uint8_t>>(scratch.begin(),
                                                      scratch.begin() + static_cast<std::ptrdiff_t>(size));
      return Read::batch_full;
    }
  }
  // Listed for nothing but drops it would be asked again and again; the service tells when there is more.
  if (wrote) return Read::more;
  await_readable();
  return Read::later;
}

void SessionStream::receiving_failed(int error) {
  if (error == ECONNREFUSED) {  // section 7: told, and the flow goes on
    reset_due_ = true;
    reset_error_ = ECONNREFUSED;
    owner_->list_control(*this);
  }
  if (error == EAGAIN || error == ECONNREFUSED || passing(error)) {
    return await_readable();
  }
  fail(error);
}

// --- refusals ---

bool Refusal::write_control(BatchWriter& batch) {
  if (!batch.fits(0)) return false;
  batch.append(FrameType::reset, number(), static_cast<uint32_t>(error_), 0);
  told_ = true;
  return true;
}

// --- listeners ---

std::vector<SessionStream*> SessionListener::untold() const {
  std::vector<SessionStream*> untold;
  std::ranges::copy_if(waiting_, std::back_inserter(untold),
                       [](const SessionStream* stream) { return stream->accepted_due_; });
  return untold;
}

int SessionListener::listen(ServiceFactory& services, const relay_v2::Target& target) {
  if (target.type != SocketType::stream) return EOPNOTSUPP;
  auto listener = services.listen(target, static_cast<int>(backlog_), *this);
  if (!listener) return listener.error().code;
  listener_ = std::move(*listener);
  return 0;
}

SessionListener::~SessionListener() {
  for (SessionStream* stream : waiting_) stream->listener_ = nullptr;
}

bool SessionListener::write_control(BatchWriter& batch) {
  if (!listening_due_) return true;
  if (!batch.fits(relay_v2::address_size)) return false;
  relay_v2::encode(listener_->address(),
                   batch.append(FrameType::listening, number(), 0, relay_v2::address_size));
  listening_due_ = false;
  return true;
}

// Further connections wait in the operating system's queue, whose business they are.
void SessionListener::joined(SessionStream& stream) {
  waiting_.push_back(&stream);
  if (waiting_.size() == backlog_) listener_->pause();
}

void SessionListener::left(SessionStream& stream) {
  std::erase(waiting_, &stream);
  if (waiting_.size() + 1 == backlog_) listener_->resume();
}

}  // namespace nvsock::csd
