#include "fuse/connection.hpp"

#include <linux/fuse.h>
#include <poll.h>

#include <algorithm>
#include <utility>

namespace csdfs {
namespace {

using Clock = std::chrono::steady_clock;
using nvsock::Stream;

// One READ reply gathers the pages of the read-ahead: one entry a page, and one for a page cut by the
// previous read.
constexpr int reply_entries = 260;

// A READ of all pages that is filled to the end makes the kernel ask for more, and that READ can wait
// although bytes were delivered (Linux 5.10-6.18, fuse_direct_io). Anything above this is cut to it.
constexpr size_t longest_reply = (max_transfer / nvsock::page_size - 1) * nvsock::page_size;

bool is_set(const timeval& value) {
  return value.tv_sec != 0 || value.tv_usec != 0;
}

// What write(2) returns when it ends early: the bytes that moved, and only if none did the error.
void reply_moved(fuse_req_t request, size_t moved, int error) {
  if (moved > 0) {
    fuse_reply_write(request, moved);
  } else {
    fuse_reply_err(request, error);
  }
}

// Users see an errno; what it takes to mend it is in the administrator's hands.
void tell_limit(Mount& mount, int error) {
  if (const auto news = mount.limits.news(error)) mount.log.error("opens fail: {}", *news);
}

}  // namespace

// --- parked requests ---

bool Connection::park(ParkedList& list, Parked what, timeval timeout) {
  // Asking before registering: libfuse would call back under the request's own lock, where no reply is
  // possible (3.14: fuse_req_interrupt_func). No signal can slip in between, this thread reads them.
  if (fuse_req_interrupted(what.request)) {
    reply_moved(what.request, what.done, EINTR);
    return false;
  }
  Parked* entry = drive_.mount().parked.take();
  *entry = std::move(what);
  entry->owner = this;
  list.push(entry);
  fuse_req_interrupt_func(entry->request, interrupted, entry);
  if (is_set(timeout)) {
    entry->deadline =
        Clock::now() + std::chrono::seconds(timeout.tv_sec) + std::chrono::microseconds(timeout.tv_usec);
    arm_deadline();
  }
  return true;
}

bool Connection::unpark(ParkedList& list, Parked* entry) {
  if (!list.remove(entry)) return false;
  drive_.mount().parked.give_back(entry);
  return true;
}

// A signal for a parked request. Until it is answered the caller cannot even be killed.
void Connection::interrupted(fuse_req_t, void* parked) {
  auto* entry = static_cast<Parked*>(parked);
  entry->owner->give_up(entry, EINTR);
}

void Connection::give_up(Parked* entry, int error) {
  const fuse_req_t request = entry->request;
  const size_t done = entry->done;
  for (ParkedList* list : {&readers_, &writers_, &syncers_, &opener_waits_}) {
    if (!unpark(*list, entry)) continue;
    reply_moved(request, done, error);
    if (list == &opener_waits_) drive_.take(*this).reset();  // the open failed: there will be no RELEASE
    return;
  }
}

void Connection::arm_deadline() {
  auto earliest = Clock::time_point::max();
  for (const ParkedList* list : {&readers_, &writers_}) {
    for (const Parked* entry = list->front(); entry != nullptr; entry = entry->next) {
      if (entry->deadline != Clock::time_point{}) earliest = std::min(earliest, entry->deadline);
    }
  }
  if (earliest == Clock::time_point::max()) return;
  if (!deadline_timer_) deadline_timer_ = nvsock::AsioClock(drive_.mount().loop).make_timer();
  deadline_timer_->arm(earliest - Clock::now(), [this] { deadline_passed(); });
}

void Connection::deadline_passed() {
  const auto now = Clock::now();
  for (ParkedList* list : {&readers_, &writers_}) {
    for (Parked* entry = list->front(); entry != nullptr;) {
      Parked* next = entry->next;
      if (entry->deadline != Clock::time_point{} && entry->deadline <= now) give_up(entry, EAGAIN);
      entry = next;
    }
  }
  arm_deadline();
}

// --- opening and ending ---

Connection::Connection(MountedDrive& drive, const Caller& opener)
    : drive_(drive), opener_(opener.process), opener_user_(opener.user) {
  drive_.add(*this);
}

Connection::~Connection() {
  drive_.remove(*this);
  if (pollers_ != nullptr) fuse_pollhandle_destroy(pollers_);
}

void Connection::open(MountedDrive& drive, fuse_req_t request, const nvsock::Endpoint& endpoint,
                      const fuse_file_info& info) {
  const Caller caller = caller_of(request);
  const AccessKind kind = endpoint.type == nvsock::SocketType::datagram ? AccessKind::udp : AccessKind::tcp;
  if (const nvsock::Result<void> may = drive.mount().access.check(caller, kind, endpoint); !may) {
    drive.mount().log.debug(may.error().text);
    fuse_reply_err(request, may.error().code);
    return;
  }
  std::unique_ptr<Connection> connection(new Connection(drive, caller));
  Connection& self = *connection;
  self.serving_ = true;  // the stream may change before connect() has returned it
  nvsock::Result<nvsock::StreamHandle> stream = drive.device().connect(endpoint, &self);
  if (!stream) {
    drive.mount().log.debug(stream.error().text);
    tell_limit(drive.mount(), stream.error().code);
    fuse_reply_err(request, stream.error().code);
    return;
  }
  self.stream_ = std::move(*stream);
  self.serving_ = false;
  const bool waits = (info.flags & O_NONBLOCK) == 0;
  if (!waits || self.stream_->state() != Stream::State::connecting) {
    answer_open(std::move(connection), request, waits);
  } else if (self.park(self.opener_waits_, {.request = request}, {})) {
    drive.hold(std::move(connection));
  }
}

void Connection::answer_open(std::unique_ptr<Connection> connection, fuse_req_t request, bool waited) {
  Connection& self = *connection;
  if (waited && self.stream_->state() == Stream::State::failed) {
    const int error = self.take_error();
    tell_limit(self.drive_.mount(), error);
    fuse_reply_err(request, error);
    return;
  }
  Mount& mount = self.drive_.mount();
  mount.log.debug("connection {} to {} opened by process {}", self.stream_->id(), self.stream_->peer().text(),
                  self.opener_);
  // Without FOPEN_STREAM a blocked read would block the writes of the same description (f_pos_lock).
  mount.files.answer_open(request, std::move(connection), FOPEN_STREAM | FOPEN_NONSEEKABLE | FOPEN_NOFLUSH);
}

void Connection::release() {
  drive_.mount().log.debug("connection {} closed: {} bytes to the drive, {} from it", stream_->id(),
                           stream_->bytes_sent() + stream_->unsent(), stream_->bytes_received());
  for (ParkedList* list : {&readers_, &writers_, &syncers_}) {
    while (!list->empty()) give_up(list->front(), nvsock::file_errno(nvsock::Cause::drive_gone));
  }
}

// --- requests ---

void Connection::read(fuse_req_t request, size_t size, off_t, const fuse_file_info& info) {
  // From Linux 6.12 splice() reads through the page cache in spite of FOPEN_DIRECT_IO and loses bytes.
  // Only such reads carry no lock owner; callers fall back to read().
  if (info.lock_owner == 0) {
    fuse_reply_err(request, EINVAL);
  } else if (!readers_.empty() || !answer_read(request, size)) {
    if ((info.flags & O_NONBLOCK) != 0) {
      fuse_reply_err(request, EAGAIN);
    } else {
      park(readers_, {.request = request, .size = size}, options_.receive_timeout());
    }
  }
  serve_changes();
}

bool Connection::answer_read(fuse_req_t request, size_t size) {
  if (size == 0) {
    fuse_reply_buf(request, nullptr, 0);
    return true;
  }
  // UDP tells an error before what came earlier (Linux: __skb_try_recv_from_queue), TCP behind it.
  if (stream_->can_read() && (!stream_->is_datagram() || stream_->error() == 0)) {
    iovec parts[reply_entries];
    size_t length = std::min({size, longest_reply, stream_->next_read()});
    const int count = stream_->gather(parts, reply_entries, length);
    if (fuse_reply_iov(request, parts, count) == 0) stream_->consume(length);
    return true;
  }
  if (stream_->error() != 0) {
    fuse_reply_err(request, take_error());
    return true;
  }
  if (stream_->receive_ended()) {
    fuse_reply_buf(request, nullptr, 0);
    return true;
  }
  return false;
}

void Connection::write(fuse_req_t request, nvsock::Slice data, const fuse_file_info& info) {
  const size_t size = data.size;
  Parked write{.request = request, .size = size, .data = std::move(data)};
  if (!writers_.empty() || !answer_write(write)) {
    if ((info.flags & O_NONBLOCK) == 0) {
      park(writers_, std::move(write), options_.send_timeout());
    } else {
      reply_moved(request, write.done, EAGAIN);
    }
  }
  serve_changes();
}

bool Connection::answer_write(Parked& write) {
  if (stream_->is_datagram()) return answer_datagram(write);
  const bool serving = std::exchange(serving_, true);
  while (write.data.size > 0) {
    const auto taken = static_cast<uint32_t>(stream_->write(write.data));
    if (taken == 0) break;
    write.data.data += taken;
    write.data.size -= taken;
    write.done += taken;
  }
  serving_ = serving;
  if (write.data.size == 0) {
    fuse_reply_write(write.request, write.done);
  } else if (stream_->send_ended()) {
    reply_moved(write.request, write.done, write.done > 0 ? 0 : send_error());
  } else {
    return false;
  }
  return true;
}

bool Connection::answer_datagram(Parked& write) {
  const int error = send_datagram({write.data.data, write.data.size});
  if (error == EAGAIN) return false;
  if (error == 0) {
    fuse_reply_write(write.request, write.size);
  } else {
    fuse_reply_err(write.request, error);
  }
  return true;
}

// A pending error takes the place of the datagram, as on a socket (Linux: sock_alloc_send_pskb).
int Connection::send_datagram(std::span<const uint8_t> datagram) {
  if (datagram.size() <= Stream::max_datagram && stream_->error() != 0) return take_error();
  const bool serving = std::exchange(serving_, true);
  const int error = stream_->write_datagram(datagram);
  serving_ = serving;
  return error;
}

void Connection::fsync(fuse_req_t request) {
  if (!answer_fsync(request)) park(syncers_, {.request = request}, {});
  serve_changes();
}

bool Connection::answer_fsync(fuse_req_t request) {
  if (stream_->error() != 0) {
    fuse_reply_err(request, take_error());
  } else if (stream_->broken()) {
    fuse_reply_err(request, EIO);  // somebody was told why; nobody knows what of the bytes arrived
  } else if (stream_->unsent() == 0) {
    fuse_reply_err(request, 0);
  } else {
    return false;
  }
  return true;
}

// --- readiness ---

void Connection::poll(fuse_req_t request, fuse_pollhandle* handle) {
  if (handle != nullptr) {
    if (pollers_ != nullptr) fuse_pollhandle_destroy(pollers_);
    pollers_ = handle;
  }
  told_events_ = stream_->poll_events();
  told_received_ = arrived();
  fuse_reply_poll(request, static_cast<unsigned>(told_events_));
}

// Edge-triggered pollers want to hear of every arrival, level-triggered ones of every new event.
void Connection::notify_pollers() {
  const short events = stream_->poll_events();
  const bool risen = (events & ~told_events_) != 0;
  const bool more = (events & POLLIN) != 0 && arrived() != told_received_;
  told_events_ = events;
  told_received_ = arrived();
  if (pollers_ != nullptr && (risen || more)) fuse_lowlevel_notify_poll(pollers_);
}

void Connection::on_stream_change(Stream&) {
  changed_ = true;
  if (!serving_) serve_changes();
}

void Connection::serve_changes() {
  if (!opener_waits_.empty()) {
    if (stream_->state() == Stream::State::connecting) return;
    const fuse_req_t request = opener_waits_.front()->request;
    unpark(opener_waits_, opener_waits_.front());
    return answer_open(drive_.take(*this), request, true);
  }
  while (std::exchange(changed_, false)) {
    serving_ = true;
    while (!readers_.empty() && answer_read(readers_.front()->request, readers_.front()->size)) {
      unpark(readers_, readers_.front());
    }
    while (!writers_.empty() && answer_write(*writers_.front())) unpark(writers_, writers_.front());
    while (!syncers_.empty() && answer_fsync(syncers_.front()->request)) unpark(syncers_, syncers_.front());
    serving_ = false;
  }
  notify_pollers();
}

}  // namespace csdfs
