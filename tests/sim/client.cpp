#include "tests/sim/client.hpp"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace nvsock::sim {

using namespace std::chrono_literals;

namespace {

// The connect timeout, and what the program itself waits before it looks.
constexpr auto connect_bound = 131s;

unsigned long long shown(uint64_t value) {
  return value;
}

}  // namespace

Client::Client(VirtualClock& clock, Random random, Story& story, Dialect& dialect,
               const SimServices& services, BufferPool& buffers, uint16_t port, const Plan& plan,
               Conditions& conditions)
    : clock_(clock),
      random_(random),
      story_(story),
      dialect_(dialect),
      services_(services),
      buffers_(buffers),
      port_(port),
      plan_(plan),
      conditions_(conditions) {}

void Client::start() {
  opened_at_ = clock_.now();
  Endpoint endpoint;
  endpoint.host = "127.0.0.1";
  endpoint.port = port_;
  auto stream = dialect_.connect(endpoint, this);
  if (!stream) {
    const int code = stream.error().code;
    if (!conditions_.explains_refusal(code))
      story_.violation("client %u: connect() says errno %d: %s", port_, code, stream.error().text.c_str());
    if (conditions_.hopeless(code)) {
      done_ = failed_ = true;
      return story_.tell("client %u: gives up: %s", port_, stream.error().text.c_str());
    }
    return try_again(code == ENFILE ? next_try_ : 1000ms);
  }
  story_.tell("client %u: connects, stream %llu", port_, shown((*stream)->id()));
  stream_ = std::move(*stream);
  begin();
  if (stream_->state() != Stream::State::connecting)
    on_stream_change(*stream_);  // it was told, but not of which
}

void Client::try_again(Clock::Duration after) {
  clock_.after(after, alive_, [this] { start(); });
}

void Client::await_program(SimServices& services, bool faults) {
  awaits_ = !stream_ && !done_;
  if (!awaits_) return;
  if (services_.record(port_).closed) {
    if (!faults) story_.violation("client %u: the drive dropped its connection", port_);
    services.forget(port_);
  }
  if (services_.record(port_).connects == 0 && services.come_in(port_)) {
    story_.tell("client %u: its program connects", port_);
    opened_at_ = clock_.now();
  }
  clock_.after(Clock::Duration(random_.below(std::chrono::nanoseconds(100ms).count())), alive_,
               [this, &services, faults] { await_program(services, faults); });
}

void Client::accept(StreamHandle& stream) {
  awaits_ = false;
  answered_ = true;
  story_.tell("client %u: is given stream %llu", port_, shown(stream->id()));
  stream_ = std::move(stream);
  stream_->observe(this);
  begin();
  on_stream_change(*stream_);
}

void Client::begin() {
  if (plan_.end == Plan::End::any_time) {
    clock_.after(plan_.patience, alive_, [this] {
      if (stream_) release("has enough");
    });
  }
  if (plan_.gives_up_after > 0s) look_for_reset();
}

void Client::look_for_reset() {
  if (!stream_) return;
  if (services_.record(port_).reset) {
    failed_ = true;
    return release("hears nothing more");
  }
  clock_.after(plan_.gives_up_after, alive_, [this] { look_for_reset(); });
}

bool Client::has_enough() const {
  return plan_.end == Plan::End::enough && written_ == plan_.to_send && read_ == plan_.to_read;
}

std::string Client::state() const {
  char text[200];
  std::snprintf(text, sizeof text,
                "client %u: written %llu of %llu, read %llu, service got %llu and made %llu, %s", port_,
                shown(written_), shown(plan_.to_send), shown(read_), shown(services_.record(port_).got),
                shown(services_.record(port_).produced),
                done_     ? "done"
                : stream_ ? established_ ? "established" : "connecting"
                          : "without a stream");
  return text;
}

void Client::on_stream_change(Stream& stream) {
  if (stream_.get() != &stream) return;
  if (acting_) {
    again_ = true;
  } else if (random_.chance(500)) {
    act();
  } else {
    clock_.after(Clock::Duration(random_.below(100'000)), alive_, [this] { act(); });
  }
}

void Client::act() {
  if (!stream_ || acting_) return;
  acting_ = true;
  do {
    again_ = false;
    Stream& stream = *stream_;
    if (stream.state() == Stream::State::established && !std::exchange(established_, true)) {
      const auto& script = services_.script(port_);
      if (!script.answers || script.connect_error != 0)
        story_.violation("client %u: established, but refused", port_);
    }
    if (stream.state() == Stream::State::connecting && stream.readable() > 0) {
      story_.violation("client %u: bytes before the connection", port_);
    }
    if (stream.state() != Stream::State::connecting && !std::exchange(answered_, true) &&
        clock_.now() - opened_at_ > connect_bound) {
      story_.violation("client %u: was told of its connection too late", port_);
    }
    if (stream.unsent() > Stream::send_limit)
      story_.violation("client %u: the send queue is beyond its bound", port_);
    if (stream.state() == Stream::State::failed) {
      failed(stream.take_error());
    } else if (established_) {
      if (!write_waits_) write_some();
      if (stream_ && !read_waits_) read_some();
    }
  } while (again_ && stream_);
  acting_ = false;
}

void Client::write_some() {
  Stream& stream = *stream_;
  if (stream.broken()) return;
  const uint64_t left = plan_.to_send - written_;
  if (left > 0 && !stream.send_ended()) {
    const size_t most = std::min<uint64_t>(left, stream.room());
    if (most == 0) return;
    const size_t size = std::min<size_t>(most, random_.between(1, plan_.write_size));
    // Large ones sometimes from a buffer that the stream keeps, at a page boundary.
    BufferRef buffer = buffers_.take();
    const auto part = static_cast<uint32_t>(std::min<size_t>(size, buffer.capacity()));
    services_.script(port_).from_host.fill(written_, {buffer.data(), part});
    const bool lend = random_.chance(500);
    const size_t taken =
        stream.write({.buffer = lend ? buffer : BufferRef(), .data = buffer.data(), .size = part});
    if (taken == 0 || taken > part)
      story_.violation("client %u: write() of %u bytes took %zu", port_, part, taken);
    if (!lend) std::memset(buffer.data(), 0xee, part);
    written_ += taken;
    return write_later();
  }
  if (left > 0) return;
  if (plan_.end == Plan::End::enough) {
    if (has_enough()) release("has written all and read enough");
    return;
  }
  if (plan_.end == Plan::End::both || plan_.end == Plan::End::any_time) {
    if (!stream.send_ended()) {
      story_.tell("client %u: ends its direction after %llu", port_, shown(written_));
      stream.shutdown_write();
    }
  } else {
    release("has written all");
  }
}

void Client::read_some() {
  Stream& stream = *stream_;
  if (stream.readable() > 0 && plan_.end != Plan::End::unread) {
    size_t size = std::min<size_t>(stream.readable(), random_.between(1, plan_.read_size));
    iovec parts[16];
    const int used = stream.gather(parts, 16, size);
    const auto& script = services_.script(port_);
    const Pattern& pattern = script.echoes ? script.from_host : script.from_service;
    for (int i = 0; i < used; ++i) {
      const std::span bytes(static_cast<const uint8_t*>(parts[i].iov_base), parts[i].iov_len);
      const size_t good = pattern.matches(read_, bytes);
      if (good < bytes.size()) {
        story_.violation("client %u: byte %llu is not the one the service sent there", port_,
                         shown(read_ + good));
      }
      read_ += bytes.size();
    }
    if (read_ > services_.record(port_).given)
      story_.violation("client %u: more bytes than the service gave", port_);
    stream.consume(size);
    if (has_enough()) return release("has read enough");
    return read_later();
  }
  if (stream.broken()) return failed(stream.take_error());
  if (stream.readable() == 0 && stream.receive_ended()) ended();
}

Clock::Duration Client::pause(Clock::Duration most) {
  if (random_.chance(plan_.long_pauses))
    return Clock::Duration(random_.below(std::chrono::nanoseconds(3s).count()));
  return Clock::Duration(random_.below(static_cast<uint64_t>(most.count()) + 1));
}

void Client::write_later() {
  write_waits_ = true;
  clock_.after(pause(plan_.write_pause), alive_, [this] {
    write_waits_ = false;
    act();
  });
}

void Client::read_later() {
  read_waits_ = true;
  clock_.after(pause(plan_.read_pause), alive_, [this] {
    read_waits_ = false;
    act();
  });
}

void Client::failed(int error) {
  const Conditions::Told told{port_, error, established_, clock_.now() - opened_at_};
  if (error == ENFILE && !established_ && services_.record(port_).connects == 0 &&
      conditions_.explains(told)) {
    stream_.reset();
    answered_ = false;
    next_try_ = std::min(2 * next_try_, last_try);
    return try_again(next_try_);
  }
  failed_ = true;
  story_.tell("client %u: told errno %d after writing %llu and reading %llu", port_, error, shown(written_),
              shown(read_));
  const Script& script = services_.script(port_);
  const Record& record = services_.record(port_);
  const bool refused = script.connect_error != 0 && error == script.connect_error && !established_;
  const bool silent = !script.answers && error == ETIMEDOUT && !established_;
  const bool reset = record.reset && (error == ECONNRESET || error == EPIPE);
  if (!refused && !silent && !reset && !conditions_.explains(told)) {
    story_.violation("client %u: told errno %d without a cause", port_, error);
  }
  release("was told an error");
}

void Client::ended() {
  const Record& record = services_.record(port_);
  if (!record.end_given) {
    if (!link_failed()) story_.violation("client %u: the end came, but the service has not ended", port_);
  } else if (read_ != record.produced) {
    story_.violation("client %u: read %llu of %llu bytes up to the end", port_, shown(read_),
                     shown(record.produced));
  }
  if (written_ == plan_.to_send && stream_->send_ended()) release("has read to the end");
}

void Client::release(const char* why) {
  if (stream_->readable() > 0 && plan_.end == Plan::End::both && !failed_) {
    story_.violation("client %u: released unread", port_);
  }
  story_.tell("client %u: %s, releases", port_, why);
  released_at_ = clock_.now();
  done_ = true;
  conditions_.on_release({.stream = stream_->id(),
                          .established = established_ && !failed_,
                          .complete = services_.record(port_).got == written_});
  stream_.reset();
}

void Client::check_delivery(bool dropped) {
  const Record& record = services_.record(port_);
  if (record.got > written_) story_.violation("%s: more than was written", state().c_str());
  // A service must not take a part for all there was.
  if (record.closed && record.got < written_ && !record.close_reset && !record.reset && !dropped)
    story_.violation("%s: closed in good order before the last byte", state().c_str());
  if (!done_ || failed_ || !established_ || record.reset || link_failed()) return;
  if (record.got == written_) {
    if (record.close_reset) story_.violation("%s, and saw a reset at the end", state().c_str());
    return;
  }
  // Bytes that the service does not take are given up after a while (the dialects' drain_timeout).
  if (record.closed && record.closed_at - released_at_ >= 25s) return;
  story_.violation("%s: bytes that were accepted did not arrive", state().c_str());
}

}  // namespace nvsock::sim
