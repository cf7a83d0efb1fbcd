#include "tests/sim/datagrams.hpp"

#include <algorithm>
#include <cerrno>

#include "libnvsock/base/bytes.hpp"

namespace nvsock::sim {

using namespace std::chrono_literals;

namespace {

constexpr size_t least = sizeof(uint64_t);
constexpr auto enough_silence = 40s;  // longer than anything on the way is held up

unsigned long long shown(uint64_t value) {
  return value;
}

size_t size_of(const FlowPlan& plan, uint64_t number) {
  return least + Random(plan.seed + number).any_size(plan.largest - least);
}

}  // namespace

std::vector<uint8_t> datagram_of(const FlowPlan& plan, uint64_t number) {
  std::vector<uint8_t> bytes(size_of(plan, number));
  store_le(bytes.data(), number);
  Pattern(plan.seed ^ number).fill(0, std::span(bytes).subspan(least));
  return bytes;
}

bool number_of(const FlowPlan& plan, std::span<const uint8_t> datagram, uint64_t& number) {
  if (datagram.size() < least) return false;
  number = load_le<uint64_t>(datagram.data());
  return number < plan.count && std::ranges::equal(datagram, datagram_of(plan, number));
}

// --- the service ---

FlowService::FlowService(VirtualClock& clock, Random random, Story& story, const FlowPlan& plan,
                         FlowRecord& record, unsigned& alive, Observer& observer)
    : clock_(clock),
      random_(random),
      story_(story),
      plan_(plan),
      record_(record),
      alive_count_(alive),
      observer_(observer) {
  ++alive_count_;
  ++record_.connects;
  clock_.after(Clock::Duration(random_.below(2'000'000)), alive_, [this] { observer_.on_connected(0); });
}

ssize_t FlowService::receive(std::span<uint8_t> into, bool& datagram) {
  datagram = true;
  if (std::exchange(error_, false)) return -ECONNREFUSED;
  if (out_.empty()) return -EAGAIN;
  const Datagram front = std::move(out_.front());
  out_.pop_front();
  out_bytes_ -= front.size();
  if (front.size() > into.size()) return -EMSGSIZE;
  std::ranges::copy(front, into.data());
  return static_cast<ssize_t>(front.size());
}

ssize_t FlowService::send(std::span<const uint8_t> from) {
  if (std::exchange(error_, false)) return -ECONNREFUSED;
  if (random_.chance(plan_.busy)) return -EAGAIN;
  uint64_t number = 0;
  if (!number_of(plan_, from, number)) {
    story_.violation("a service got %zu bytes that are no datagram of its client", from.size());
  } else if (number < next_) {
    story_.violation("a service got datagram %llu, but had %llu", shown(number), shown(next_));
  }
  next_ = number + 1;
  if (random_.chance(plan_.refused)) {
    ++record_.refused;
    error_ = true;
    wake();
  } else if (in_bytes_ + from.size() > plan_.room) {
    ++record_.dropped;
  } else {
    ++record_.got;
    in_bytes_ += from.size();
    in_.emplace_back(from.begin(), from.end());
    echo();
  }
  return static_cast<ssize_t>(from.size());
}

void FlowService::echo() {
  if (echoing_ || in_.empty()) return;
  echoing_ = true;
  const auto pause = Clock::Duration(random_.below(static_cast<uint64_t>(plan_.echo_pause.count()) + 1));
  clock_.after(pause, alive_, [this] {
    echoing_ = false;
    Datagram front = std::move(in_.front());
    in_.pop_front();
    in_bytes_ -= front.size();
    if (out_bytes_ + front.size() <= plan_.room) {
      ++record_.offered;
      out_bytes_ += front.size();
      out_.push_back(std::move(front));
    }
    echo();
    wake();
  });
}

void FlowService::await_readable() {
  awaiting_readable_ = true;
  wake();
}

void FlowService::await_writable() {
  clock_.after(1ms, alive_, [this] { observer_.on_writable(); });
}

void FlowService::wake() {
  if (!awaiting_readable_ || waking_ || (out_.empty() && !error_)) return;
  waking_ = true;
  clock_.after(0us, alive_, [this] {
    waking_ = awaiting_readable_ = false;
    observer_.on_readable();
  });
}

// --- the client ---

FlowClient::FlowClient(VirtualClock& clock, Random random, Story& story, Dialect& dialect, uint16_t port,
                       const FlowPlan& plan, const FlowRecord& record, size_t sendable,
                       std::function<bool(Clock::TimePoint)> excuse)
    : clock_(clock),
      random_(random),
      story_(story),
      dialect_(dialect),
      port_(port),
      plan_(plan),
      record_(record),
      sendable_(sendable),
      excuse_(std::move(excuse)) {}

void FlowClient::start() {
  opened_at_ = clock_.now();
  Endpoint endpoint;
  endpoint.host = "127.0.0.1";
  endpoint.port = port_;
  endpoint.type = SocketType::datagram;
  auto stream = dialect_.connect(endpoint, this);
  if (!stream) {
    const int code = stream.error().code;
    if (code != ENFILE && code != ENODEV) story_.violation("flow %u: connect() says errno %d", port_, code);
    clock_.after(code == ENFILE ? 50ms : 1000ms, alive_, [this] { start(); });
    return;
  }
  stream_ = std::move(*stream);
}

std::string FlowClient::state() const {
  char text[200];
  std::snprintf(text, sizeof text,
                "flow %u: sent %llu of %u, %llu came back; service got %llu, refused %llu, dropped %llu, "
                "offered %llu",
                port_, shown(sent_), plan_.count, shown(came_), shown(record_.got), shown(record_.refused),
                shown(record_.dropped), shown(record_.offered));
  return text;
}

void FlowClient::on_stream_change(Stream& stream) {
  if (stream_.get() != &stream) return;
  if (acting_) {
    again_ = true;
  } else {
    clock_.after(Clock::Duration(random_.below(100'000)), alive_, [this] { act(); });
  }
}

void FlowClient::act() {
  if (!stream_ || acting_) return;
  acting_ = true;
  do {
    again_ = false;
    if (stream_->state() == Stream::State::established && !std::exchange(established_, true))
      clock_.after(enough_silence, alive_, [this] { look_for_silence(); });
    if (const int error = stream_->take_error(); error != 0) told(error);
    if (stream_ && established_) {
      if (!writing_later_) write_some();
      if (!reading_later_) read_some();
    }
  } while (again_ && stream_);
  acting_ = false;
}

void FlowClient::write_some() {
  if (number_ == plan_.count) return;
  const std::vector<uint8_t> datagram = datagram_of(plan_, number_);
  const int error = stream_->write_datagram(datagram);
  if (error == EAGAIN) return;
  if ((error == EMSGSIZE) != (datagram.size() > sendable_))
    story_.violation("flow %u: sending %zu bytes says errno %d", port_, datagram.size(), error);
  if (error == 0) ++sent_;
  ++number_;
  Clock::Duration delay = pause(plan_.write_pause);
  if (number_ > plan_.count / 2 && !std::exchange(silent_, true)) delay += plan_.silence;
  writing_later_ = true;
  clock_.after(delay, alive_, [this] {
    writing_later_ = false;
    act();
  });
}

void FlowClient::read_some() {
  if (!stream_->can_read()) return;
  std::vector<uint8_t> datagram(stream_->next_read());
  stream_->peek(datagram.data(), datagram.size());
  stream_->consume(datagram.size());
  uint64_t number = 0;
  if (!number_of(plan_, datagram, number)) {
    story_.violation("flow %u: %zu bytes came that were never sent", port_, datagram.size());
  } else if (number < next_) {
    story_.violation("flow %u: datagram %llu came, but %llu had", port_, shown(number), shown(next_));
  }
  next_ = number + 1;
  ++came_;
  reading_later_ = true;
  clock_.after(pause(plan_.read_pause), alive_, [this] {
    reading_later_ = false;
    act();
  });
}

// Lost datagrams do not tell: it ends when nothing has come for long.
void FlowClient::look_for_silence() {
  if (!stream_) return;
  const bool over =
      number_ == plan_.count && came_ == seen_ && stream_->unsent() == 0 && !stream_->can_read();
  seen_ = came_;
  if (over) return release();
  clock_.after(enough_silence, alive_, [this] { look_for_silence(); });
}

void FlowClient::told(int error) {
  ++errors_;
  const bool refused = error == ECONNREFUSED && established_ && record_.refused > 0 && !stream_->broken();
  const bool link = excuse_(opened_at_) && (error == ETIMEDOUT || error == ECONNRESET);
  if (!refused && !link) story_.violation("flow %u: told errno %d without a cause", port_, error);
  if (!stream_->broken()) return;
  failed_ = true;
  release();
}

void FlowClient::release() {
  story_.tell("%s; releases", state().c_str());
  flow_ended_ = record_.ended > 0;
  done_ = true;
  stream_.reset();
}

bool FlowClient::account(uint64_t& lost) {
  if (came_ > record_.offered) story_.violation("%s: more than was sent back", state().c_str());
  if (!done_ || failed_ || flow_ended_ || excuse_(opened_at_)) return false;
  if (sent_ != record_.got + record_.refused + record_.dropped) {
    story_.violation("%s: lost on the way there", state().c_str());
  }
  lost = record_.offered - came_;
  return true;
}

}  // namespace nvsock::sim
