// A drive's second-generation end without sockets or real time: a clock that is moved by hand, services that
// do what the test says, and commands built by hand.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "csd/v2/session_table.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock::test {

using namespace std::chrono_literals;

class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  std::unique_ptr<Timer> make_timer() override { return std::make_unique<ManualTimer>(*this); }

  // Runs what falls due on the way, in order.
  void advance(Duration by) {
    const TimePoint end = now_ + by;
    while (true) {
      const auto next = std::ranges::min_element(armed_, {}, [](const auto* timer) { return timer->due; });
      if (next == armed_.end() || (*next)->due > end) break;
      ManualTimer& timer = **next;
      now_ = std::max(now_, timer.due);
      armed_.erase(next);
      const auto call = std::move(timer.call);
      call();
    }
    now_ = end;
  }

 private:
  struct ManualTimer final : Timer {
    explicit ManualTimer(ManualClock& clock) : owner(clock) {}
    ~ManualTimer() override { disarm(); }
    void arm(Duration after, std::function<void()> to_call) override {
      disarm();
      due = owner.now_ + after;
      call = std::move(to_call);
      owner.armed_.push_back(this);
    }
    void disarm() override { std::erase(owner.armed_, this); }

    ManualClock& owner;
    TimePoint due;
    std::function<void()> call;
  };

  TimePoint now_{1h};
  std::vector<ManualTimer*> armed_;
};

// What the test sees of a service; outlives it.
struct ServiceModel {
  std::string node;
  bool is_datagram = false;
  csd::Service::Observer* observer = nullptr;
  // From the service to the host. A stream's are joined as the reader likes; datagrams are one each.
  std::deque<std::string> outgoing;
  bool ended = false;     // after `outgoing`
  int receive_error = 0;  // after `outgoing`
  // To the service.
  std::vector<std::string> sends;  // as taken, one a call
  size_t room = SIZE_MAX;          // bytes it takes before EAGAIN
  int send_error = 0;              // once if it is a datagram service
  bool awaits_readable = false;
  bool awaits_writable = false;
  bool shut_down = false;
  bool reset = false;
  bool closed = false;
  unsigned receives = 0;

  std::string received() const {
    std::string all;
    for (const std::string& part : sends) all += part;
    return all;
  }
  bool readable() const { return !outgoing.empty() || ended || receive_error != 0; }
  // Has something to say, and says so.
  void poke() {
    if (!closed && readable() && std::exchange(awaits_readable, false)) observer->on_readable();
  }
  void give(std::string bytes) {
    outgoing.push_back(std::move(bytes));
    poke();
  }
  void end() {
    ended = true;
    poke();
  }
  void fail(int error) {
    receive_error = error;
    poke();
  }
  void make_room(size_t bytes) {
    room = bytes;
    if (std::exchange(awaits_writable, false)) observer->on_writable();
  }
  void connected(int error = 0) { observer->on_connected(error); }
};

class FakeService final : public csd::Service {
 public:
  explicit FakeService(std::shared_ptr<ServiceModel> shared) : model(std::move(shared)) {}
  ~FakeService() override {
    model->closed = true;
    model->reset = !in_order_;
  }

  ssize_t receive(std::span<uint8_t> into, bool& datagram) override {
    ++model->receives;
    datagram = model->is_datagram;
    if (model->outgoing.empty()) {
      if (model->receive_error != 0) {
        const int error = model->receive_error;
        if (model->is_datagram) model->receive_error = 0;
        return -error;
      }
      if (!model->ended) return -EAGAIN;
      datagram = false;
      return 0;
    }
    std::string& front = model->outgoing.front();
    if (model->is_datagram && front.size() > into.size()) return -EMSGSIZE;
    const size_t part = std::min(front.size(), into.size());
    std::copy_n(front.begin(), part, into.begin());
    front.erase(0, part);
    if (front.empty()) model->outgoing.pop_front();
    return static_cast<ssize_t>(part);
  }
  ssize_t send(std::span<const uint8_t> from) override {
    if (model->send_error != 0) {
      const int error = model->send_error;
      if (model->is_datagram) model->send_error = 0;
      return -error;
    }
    if (model->room == 0 || (model->is_datagram && from.size() > model->room)) return -EAGAIN;
    const size_t part = std::min(from.size(), model->room);
    model->room -= part;
    model->sends.emplace_back(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(part));
    return static_cast<ssize_t>(part);
  }
  void await_readable() override {
    EXPECT_FALSE(model->awaits_readable) << "awaited twice";
    model->awaits_readable = true;
  }
  void await_writable() override {
    EXPECT_FALSE(model->awaits_writable) << "awaited twice";
    model->awaits_writable = true;
  }
  void shut_down_sending() override {
    EXPECT_FALSE(model->shut_down);
    model->shut_down = true;
  }
  void close_in_order() override { in_order_ = true; }
  relay_v2::Opened addresses() const override { return {}; }

  const std::shared_ptr<ServiceModel> model;

 private:
  bool in_order_ = false;
};

struct ListenerModel {
  csd::ServiceListener::Observer* observer = nullptr;
  bool paused = false;
  bool closed = false;
  int backlog = 0;
};

class FakeListener final : public csd::ServiceListener {
 public:
  explicit FakeListener(std::shared_ptr<ListenerModel> shared) : model(std::move(shared)) {}
  ~FakeListener() override { model->closed = true; }
  void pause() override { model->paused = true; }
  void resume() override { model->paused = false; }
  sockaddr_storage address() const override { return {}; }

  const std::shared_ptr<ListenerModel> model;
};

class FakeServices final : public csd::ServiceFactory {
 public:
  std::unique_ptr<csd::Service> connect(csd::Client, const relay_v2::Target& target,
                                        csd::Service::Observer& observer) override {
    auto model = std::make_shared<ServiceModel>();
    model->node = target.node;
    model->is_datagram = target.type == SocketType::datagram;
    model->observer = &observer;
    services.push_back(model);
    return std::make_unique<FakeService>(model);
  }
  void observe(csd::Service& service, csd::Service::Observer& observer) override {
    static_cast<FakeService&>(service).model->observer = &observer;
  }
  Result<std::unique_ptr<csd::ServiceListener>> listen(const relay_v2::Target&, int backlog,
                                                       csd::ServiceListener::Observer& observer) override {
    if (listen_error != 0) return Error{listen_error, "refused"};
    auto model = std::make_shared<ListenerModel>();
    model->observer = &observer;
    model->backlog = backlog;
    listeners.push_back(model);
    return std::unique_ptr<csd::ServiceListener>(std::make_unique<FakeListener>(model));
  }
  // A connection comes in.
  ServiceModel& come_in(size_t listener = 0) {
    services.push_back(std::make_shared<ServiceModel>());
    listeners[listener]->observer->on_accepted(std::make_unique<FakeService>(services.back()));
    return *services.back();
  }

  std::vector<std::shared_ptr<ServiceModel>> services;
  std::vector<std::shared_ptr<ListenerModel>> listeners;
  int listen_error = 0;
};

struct DriveV2Command : Command {
  std::vector<uint8_t> bytes;
  unsigned completed = 0;

  int error() const { return status::errno_of(completion.status); }
  bool pending() const { return completed == 0; }
};

// A frame with its payload copied, for comparing.
struct Seen {
  relay_v2::FrameType type;
  uint32_t stream;
  uint32_t value;
  std::string payload;
};

// Frames of one batch towards the drive.
class Frames {
 public:
  Frames& add(relay_v2::FrameType type, uint32_t stream, uint32_t value = 0, std::string_view payload = {}) {
    writer_.append({.type = type,
                    .stream = stream,
                    .value = value,
                    .payload = {reinterpret_cast<const uint8_t*>(payload.data()), payload.size()}});
    return *this;
  }
  Frames& target(relay_v2::FrameType type, uint32_t stream, uint32_t value, std::string_view node,
                 SocketType kind) {
    const relay_v2::Target target{.type = kind, .family = {}, .port = 80, .node = node};
    encode(target, writer_.append(type, stream, value, encoded_size(target)));
    return *this;
  }
  Frames& open(uint32_t stream, uint32_t credit = 1 << 20) {
    return target(relay_v2::FrameType::open, stream, credit, "127.0.0.1", SocketType::stream);
  }
  Frames& open_datagram(uint32_t stream, uint32_t credit = 1 << 20) {
    return target(relay_v2::FrameType::open, stream, credit, "127.0.0.1", SocketType::datagram);
  }
  Frames& listen(uint32_t stream, uint32_t backlog) {
    return target(relay_v2::FrameType::listen, stream, backlog, "::1", SocketType::stream);
  }
  Frames& data(uint32_t stream, std::string_view bytes) {
    return add(relay_v2::FrameType::data, stream, 0, bytes);
  }
  Frames& datagram(uint32_t stream, std::string_view bytes) {
    return add(relay_v2::FrameType::datagram, stream, 0, bytes);
  }
  Frames& window(uint32_t stream, uint32_t credit) {
    return add(relay_v2::FrameType::window, stream, credit);
  }
  Frames& fin(uint32_t stream) { return add(relay_v2::FrameType::fin, stream); }
  Frames& reset(uint32_t stream, int error = 0) {
    return add(relay_v2::FrameType::reset, stream, static_cast<uint32_t>(error));
  }

  std::vector<uint8_t> batch(uint64_t sequence, uint64_t taken = 0) {
    const uint32_t size = writer_.finish(sequence, taken);
    return {buffer_->begin(), buffer_->begin() + size};
  }

 private:
  // Shared by copies: each has a writer that points into it.
  std::shared_ptr<std::vector<uint8_t>> buffer_ = std::make_shared<std::vector<uint8_t>>(relay_v2::max_batch);
  relay_v2::BatchWriter writer_{*buffer_};
};

inline std::vector<Seen> frames_of(std::span<const uint8_t> bytes, uint64_t sequence) {
  std::vector<Seen> seen;
  if (bytes.empty()) return seen;
  auto batch = relay_v2::Batch::parse(bytes, sequence, relay_v2::Batch::From::drive);
  EXPECT_TRUE(batch) << "batch " << sequence << " does not parse";
  while (batch) {
    const auto frame = batch->next();
    if (!frame) break;
    seen.push_back({frame->type, frame->stream, frame->value,
                    std::string(frame->payload.begin(), frame->payload.end())});
  }
  return seen;
}

class SessionFixture : public ::testing::Test, private csd::CompletionQueue {
 protected:
  static constexpr relay_v2::Epoch epoch{1, 2, 3};
  static constexpr relay_v2::Secret secret{7, 8, 9};

  SessionFixture() {
    options.epoch = epoch;
    restart();
  }

  void restart() {
    table.reset();
    table = std::make_unique<csd::SessionTable>(clock, services, static_cast<csd::CompletionQueue&>(*this),
                                                options);
  }

  DriveV2Command& make(const relay_v2::Call& call, size_t size) {
    DriveV2Command& command = *commands.emplace_back(std::make_unique<DriveV2Command>());
    command.bytes.resize(size, 0xa5);
    command.data_length = static_cast<uint32_t>(size);
    encode(call, command);
    command.data = command.bytes.data();
    command.done = [](Command& done) { ++static_cast<DriveV2Command&>(done).completed; };
    return command;
  }
  DriveV2Command& run(DriveV2Command& command) {
    EXPECT_TRUE(csd::SessionTable::handles(command));
    table->execute(command, host);
    flush();
    return command;
  }

  DriveV2Command& attach(uint64_t to = 1, bool resume = false, const relay_v2::Epoch& in = epoch) {
    return attach(relay_v2::SessionRequest{.resume = resume,
                                           .features = relay_v2::feature::all,
                                           .epoch = in,
                                           .key = {.handle = to, .secret = secret}});
  }
  DriveV2Command& attach(const relay_v2::SessionRequest& request) {
    DriveV2Command& command = make({.function = relay_v2::function::attach}, relay_v2::session_request_size);
    encode(request, command.bytes);
    return run(command);
  }
  // What was the handle of a session that is made with it.
  uint64_t attached(uint64_t to = 1) {
    EXPECT_EQ(attach(to).error(), 0);
    return to;
  }
  DriveV2Command& detach(uint64_t from) {
    return run(make({.function = relay_v2::function::detach, .handle = from}, 0));
  }
  DriveV2Command& tx_bytes(uint64_t sequence, const std::vector<uint8_t>& bytes) {
    DriveV2Command& command = make(
        {.function = relay_v2::function::tx, .handle = handle, .sequence = static_cast<uint32_t>(sequence)},
        bytes.size());
    command.bytes = bytes;
    command.data = command.bytes.data();
    return run(command);
  }
  DriveV2Command& tx(uint64_t sequence, Frames frames, uint64_t taken = 0) {
    return tx_bytes(sequence, frames.batch(sequence, taken));
  }
  // The next batch, which is to succeed.
  void send(Frames frames, uint64_t taken = 0) { EXPECT_EQ(tx(next_tx++, frames, taken).error(), 0); }

  DriveV2Command& rx(uint64_t sequence, std::chrono::milliseconds wait = 5s, uint32_t distance = 0,
                     size_t size = relay_v2::max_batch) {
    DriveV2Command& command = make({.function = relay_v2::function::rx,
                                    .handle = handle,
                                    .sequence = static_cast<uint32_t>(sequence),
                                    .wait_ms = static_cast<uint32_t>(wait.count()),
                                    .distance = distance},
                                   size);
    return run(command);
  }
  static std::vector<Seen> seen(const DriveV2Command& command) {
    EXPECT_EQ(command.completed, 1u);
    EXPECT_EQ(command.completion.status, status::success);
    return frames_of(std::span(command.bytes).first(command.completion.dw0), command.cdw13);
  }
  // What the drive has to say now, all of it.
  std::vector<Seen> fetch(size_t size = relay_v2::max_batch) {
    std::vector<Seen> all;
    while (true) {
      for (const auto& service : services.services) service->poke();
      const auto part = seen(rx(next_rx, 0ms, 0, size));
      if (part.empty()) return all;
      ++next_rx;
      all.insert(all.end(), part.begin(), part.end());
    }
  }
  // Streams 1, 3, ... up to `count` of them, connected; the last one's model.
  ServiceModel& open(unsigned count = 1, uint32_t credit = 1 << 20) {
    for (unsigned i = 0; i < count; ++i) {
      send(Frames().open(next_stream, credit));
      next_stream += 2;
      services.services.back()->connected();
    }
    fetch();
    return *services.services.back();
  }
  ServiceModel& open_datagram(uint32_t credit = 1 << 20) {
    send(Frames().open_datagram(next_stream, credit));
    next_stream += 2;
    services.services.back()->connected();
    fetch();
    return *services.services.back();
  }
  void start_session() { handle = attached(); }

  void post(Command& command) override { posted.push(command); }
  void flush() override {
    while (!posted.empty()) {
      Command& command = posted.pop();
      command.done(command);
    }
  }

  ManualClock clock;
  FakeServices services;
  csd::SessionTableOptions options = [] {
    csd::SessionTableOptions plain;
    plain.largest_window = plain.window;  // so that tests know the credit to come
    return plain;
  }();
  CommandQueue posted;
  std::deque<std::unique_ptr<DriveV2Command>> commands;
  std::unique_ptr<csd::SessionTable> table;
  csd::HostName host;  // whose commands run() runs
  uint64_t handle = 0;
  uint64_t next_tx = 1;
  uint64_t next_rx = 1;
  uint32_t next_stream = 1;
};

}  // namespace nvsock::test
