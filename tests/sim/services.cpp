#include "tests/sim/services.hpp"

#include <netinet/in.h>

#include <algorithm>
#include <cerrno>

namespace nvsock::sim {

using namespace std::chrono_literals;

class SimService final : public csd::Service {
 public:
  // A null observer: it is the program that connects, and one will be given.
  SimService(SimServices& services, uint16_t port, SimServices::Place& place, Observer* observer)
      : services_(services), port_(port), script_(place.script), record_(place.record), observer_(observer) {
    ++services_.alive_;
    ++record_.connects;
    source_left_ = script_.echoes ? 0 : script_.source_bytes;
    if (observer == nullptr) {
      begin();
    } else if (script_.answers) {
      after(script_.connect_delay, [this] { connected(); });
    }
  }
  void set_observer(Observer& observer) { observer_ = &observer; }
  ~SimService() override {
    --services_.alive_;
    record_.closed = true;
    record_.closed_at = services_.clock_.now();
    services_.story_.tell(
        "service %u: closed%s, got %llu, gave %llu", port_, record_.close_reset ? " with a reset" : "",
        static_cast<unsigned long long>(record_.got), static_cast<unsigned long long>(record_.given));
  }

  ssize_t receive(std::span<uint8_t> into, bool& datagram) override {
    datagram = false;
    if (!connected_) services_.story_.violation("service %u: receive() before it is connected", port_);
    if (into.empty()) services_.story_.violation("service %u: receive() of nothing", port_);
    if (record_.reset) return -ECONNRESET;
    const size_t size = some_of(std::min(into.size(), waiting_));
    if (size == 0) {
      if (!ended_) return -EAGAIN;
      record_.end_given = true;
      return 0;
    }
    pattern_out().fill(record_.given, into.first(size));
    record_.given += size;
    waiting_ -= size;
    move_later();
    return static_cast<ssize_t>(size);
  }

  ssize_t send(std::span<const uint8_t> from) override {
    if (!connected_) services_.story_.violation("service %u: send() before it is connected", port_);
    if (record_.saw_end) services_.story_.violation("service %u: send() after shut_down_sending()", port_);
    if (record_.reset) return std::exchange(reset_told_, true) ? -EPIPE : -ECONNRESET;
    const size_t size = some_of(std::min(from.size(), script_.in_capacity - unread_));
    if (size == 0) return -EAGAIN;
    const size_t good = script_.from_host.matches(record_.got, from.first(size));
    if (good < size) {
      services_.story_.violation("service %u: byte %llu is not the one the host sent there", port_,
                                 static_cast<unsigned long long>(record_.got + good));
    }
    record_.got += size;
    unread_ += size;
    move_later();
    return static_cast<ssize_t>(size);
  }

  void await_readable() override {
    awaiting_readable_ = true;
    wake();
  }
  void await_writable() override {
    awaiting_writable_ = true;
    wake();
  }
  void shut_down_sending() override {
    if (record_.saw_end) services_.story_.violation("service %u: shut_down_sending() twice", port_);
    services_.story_.tell("service %u: the host has ended after %llu", port_,
                          static_cast<unsigned long long>(record_.got));
    record_.saw_end = true;
    move_later();
  }
  void close_in_order() override { record_.close_reset = false; }

  relay_v2::Opened addresses() const override {
    relay_v2::Opened opened;
    for (sockaddr_storage* address : {&opened.local, &opened.peer}) {
      auto& v4 = reinterpret_cast<sockaddr_in&>(*address);
      v4.sin_family = AF_INET;
      v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      v4.sin_port = htons(address == &opened.peer ? port_ : static_cast<uint16_t>(40000 + port_));
    }
    return opened;
  }

 private:
  void after(Clock::Duration delay, std::function<void()> call) {
    services_.clock_.after(delay, alive_, std::move(call));
  }
  // As a socket may: sometimes less than asked for.
  size_t some_of(size_t size) {
    return size > 1 && services_.random_.chance(100) ? services_.random_.between(1, size) : size;
  }
  const Pattern& pattern_out() const { return script_.echoes ? script_.from_host : script_.from_service; }

  void begin() {
    connected_ = true;
    if (source_left_ > 0 || script_.ends_first) move_later();
  }

  void connected() {
    if (script_.connect_error == 0) begin();
    observer_->on_connected(script_.connect_error);  // may destroy this
  }

  void move_later() {
    if (moving_ || record_.reset) return;
    moving_ = true;
    Clock::Duration delay = script_.tick;
    if (read_since_pause_ >= script_.pause_every) {
      read_since_pause_ = 0;
      delay += script_.pause;
    }
    after(delay, [this] { move(); });
  }

  void move() {
    moving_ = false;
    size_t size = std::min<size_t>(unread_, services_.random_.between(1, script_.read_size));
    if (script_.echoes) size = std::min(size, script_.out_capacity - waiting_);
    unread_ -= size;
    read_ += size;
    read_since_pause_ += size;
    const size_t made =
        script_.echoes
            ? size
            : static_cast<size_t>(std::min<uint64_t>(script_.out_capacity - waiting_, source_left_));
    if (!script_.echoes) source_left_ -= made;
    waiting_ += made;
    record_.produced += made;
    if (read_ + record_.produced >= script_.reset_after) {
      services_.story_.tell("service %u: resets the connection", port_);
      record_.reset = true;
      waiting_ = 0;
      return wake();
    }
    const bool all_read = record_.saw_end && unread_ == 0;
    if (source_left_ == 0 && !ended_ && (all_read || (script_.ends_first && !script_.echoes))) {
      services_.story_.tell("service %u: ends after %llu", port_,
                            static_cast<unsigned long long>(record_.produced));
      ended_ = true;
    }
    const bool can_read = unread_ > 0 && (!script_.echoes || waiting_ < script_.out_capacity);
    const bool can_make = source_left_ > 0 && waiting_ < script_.out_capacity;
    if (can_read || can_make) move_later();
    wake();
  }

  void wake() {
    if (awaiting_readable_ && !waking_reader_ && (waiting_ > 0 || ended_ || record_.reset)) {
      waking_reader_ = true;
      after(0us, [this] {
        waking_reader_ = awaiting_readable_ = false;
        observer_->on_readable();
      });
    }
    if (awaiting_writable_ && !waking_writer_ && (unread_ < script_.in_capacity || record_.reset)) {
      waking_writer_ = true;
      after(0us, [this] {
        waking_writer_ = awaiting_writable_ = false;
        observer_->on_writable();
      });
    }
  }

  SimServices& services_;
  const uint16_t port_;
  const Script& script_;
  Record& record_;
  Observer* observer_;
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
  bool connected_ = false, ended_ = false, reset_told_ = false, moving_ = false;
  bool awaiting_readable_ = false, awaiting_writable_ = false, waking_reader_ = false, waking_writer_ = false;
  size_t unread_ = 0;   // in the buffer towards the program
  size_t waiting_ = 0;  // in the one towards the drive
  uint64_t read_ = 0, read_since_pause_ = 0, source_left_ = 0;
};

std::unique_ptr<csd::Service> SimServices::connect(csd::Client, const relay_v2::Target& target,
                                                   csd::Service::Observer& observer) {
  if (const auto flow = flows_.find(target.port);
      flow != flows_.end() && target.type == SocketType::datagram) {
    return std::make_unique<FlowService>(clock_, Random(random_.next()), story_, flow->second.plan,
                                         flow->second.record, alive_, observer);
  }
  const auto found = places_.find(target.port);
  if (found == places_.end() || target.node != "127.0.0.1" || target.type != SocketType::stream) {
    story_.violation("the drive connects to %.*s port %u, which nobody asked for",
                     static_cast<int>(target.node.size()), target.node.data(), target.port);
    Script refusal;
    refusal.connect_error = ECONNREFUSED;
    Place& nowhere = places_.insert_or_assign(0, Place{refusal, {}}).first->second;
    return std::make_unique<SimService>(*this, 0, nowhere, &observer);
  }
  if (found->second.record.connects > 0) story_.violation("service %u is connected to twice", target.port);
  return std::make_unique<SimService>(*this, target.port, found->second, &observer);
}

// One address, as nothing here needs two.
class SimListener final : public csd::ServiceListener {
 public:
  SimListener(SimServices& services, Observer& observer) : services_(services), observer_(observer) {
    services_.listener_ = this;
    services_.story_.tell("the drive listens");
  }
  ~SimListener() override {
    services_.listener_ = nullptr;
    services_.story_.tell("the drive listens no more");
  }
  void pause() override { paused_ = true; }
  void resume() override { paused_ = false; }
  sockaddr_storage address() const override {
    sockaddr_storage address{};
    auto& v4 = reinterpret_cast<sockaddr_in&>(address);
    v4.sin_family = AF_INET;
    v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v4.sin_port = htons(listening_port);
    return address;
  }

  bool paused() const { return paused_; }
  void give(std::unique_ptr<csd::Service> service) { observer_.on_accepted(std::move(service)); }

 private:
  SimServices& services_;
  Observer& observer_;
  bool paused_ = false;
};

void SimServices::observe(csd::Service& service, csd::Service::Observer& observer) {
  static_cast<SimService&>(service).set_observer(observer);
}

Result<std::unique_ptr<csd::ServiceListener>> SimServices::listen(const relay_v2::Target& target, int,
                                                                  csd::ServiceListener::Observer& observer) {
  if (target.port != listening_port || target.node != "127.0.0.1")
    story_.violation("the drive listens at port %u, which nobody asked for", target.port);
  if (listener_ != nullptr) return Error{EADDRINUSE, "a session whose lease is not over yet listens"};
  return std::unique_ptr<csd::ServiceListener>(std::make_unique<SimListener>(*this, observer));
}

bool SimServices::come_in(uint16_t port) {
  if (listener_ == nullptr || listener_->paused()) return false;
  listener_->give(std::make_unique<SimService>(*this, port, places_.at(port), nullptr));
  return true;
}

}  // namespace nvsock::sim
