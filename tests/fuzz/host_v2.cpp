// The second-generation host against a drive that answers anything, in any order, at any time: no answer may
// make it read or write where it must not, send a batch that is not of the protocol, change one that it has
// sent, use a buffer the drive has, or keep a stream or a listener for ever.
//
// Input: a capability page in short, then steps (see step()).
#include <map>
#include <set>
#include <string>
#include <vector>

#include "libnvsock/host/dialect_v2.hpp"
#include "tests/fuzz/held_port.hpp"
#include "tests/fuzz/programs.hpp"
#include "tests/sim/virtual_clock.hpp"

namespace {

using namespace nvsock;
using namespace std::chrono_literals;
using fuzz::check;
using fuzz::Input;
using relay_v2::FrameType;

std::span<uint8_t> data_of(const Command& command) {
  return {static_cast<uint8_t*>(command.data), command.data_length};
}

constexpr unsigned max_in_flight = 16;
constexpr size_t most_read_ahead = 1 << 20;  // of a stream

class Run final : private ListenerObserver {
 public:
  explicit Run(Input input)
      : input_(input),
        capabilities_(any_capabilities()),
        port_({.ordered = false, .max_in_flight = max_in_flight, .max_blocking = max_in_flight},
              [this](const Command& command) { examine(command); }),
        dialect_(std::make_unique<DialectV2>(clock_, port_, capabilities_, options())),
        programs_(input_, most_read_ahead) {}

  void go() {
    for (int steps = 0; !input_.empty() && steps < 400; ++steps) step();
    programs_.let_go_of_all();
    if (input_.below(2) == 0) listeners_.clear();
    // At last the drive is gone, or starts anew and lets nobody attach: what was let go ends within its
    // bounds, the drive is asked in vain ever less often, and that is told once.
    const unsigned told = told_;
    const uint64_t commands = dialect_->counters().commands;
    const bool anew = lease_s_ > 16 || input_.below(2) == 0;
    const auto end = clock_.now() + (anew ? 10s : std::chrono::seconds(lease_s_) + 30s);
    do {
      while (port_.held() > 0) {
        const bool page = anew && relay_v2::function_of(port_.at(0)) == relay_v2::function::capabilities;
        if (page) tell_capabilities(port_.at(0), 256);
        port_.complete(0, page ? Completion{} : Completion{.error = ENODEV, .status = 0, .dw0 = 0});
      }
      port_.end_batch();
    } while (port_.held() > 0 || (clock_.now() < end && clock_.step()));
    check(told_ <= told + 4, "what goes wrong all the time is not told all the time");
    check(dialect_->counters().commands <= commands + 150, "nor is it tried all the time");
    check(dialect_->counters().streams_now == 0, "no stream outlives the drive");
    check(dialect_->counters().in_flight_now == port_.held(), "commands are counted off");
    check(asked_ == told_counters_, "who asks for counters is told");
    listeners_.clear();
    check(dialect_->drained(), "no listener outlives its handle");
    dialect_.reset();
  }

 private:
  relay_v2::Capabilities any_capabilities() {
    constexpr uint32_t batches[] = {relay_v2::min_batch, 4104, 65536, relay_v2::max_batch};
    relay_v2::Capabilities capabilities;
    capabilities.features = static_cast<uint32_t>(input_.below(16));
    capabilities.max_streams = 1 + static_cast<uint32_t>(input_.below(5));
    capabilities.max_batch = batches[input_.below(4)];
    capabilities.max_wait_ms = 1 + input_.number<uint16_t>() % relay_v2::max_wait_ms;
    capabilities.tx_window = static_cast<uint16_t>(1 + input_.below(6));
    capabilities.rx_window = static_cast<uint16_t>(1 + input_.below(6));
    capabilities.lease_s = lease_s_ = 1 + static_cast<uint32_t>(input_.below(16));
    return capabilities;
  }
  DialectV2Options options() {
    constexpr uint32_t windows[] = {64, 4096, 256 * 1024};
    return {
        .connect_timeout = 5s,
        .drain_timeout = 3s,
        .window = windows[input_.below(3)],
        .session = {.handle = 7, .secret = {7}},
        .log = [this](LogLevel level, const std::string&) { told_ += level == LogLevel::warning ? 1 : 0; }};
  }

  // --- what the host sends ---

  void examine(const Command& command) {
    check(port_.held() < max_in_flight, "no more commands are in flight than section 8 has");
    check(relay_v2::told_length(command) == command.data_length && command.cdw11 == 0 &&
              command.data_length <= relay_v2::max_batch,
          "CDW10 is the length of a buffer that may be");
    const relay_v2::Call call = relay_v2::parse_call(command);
    switch (call.function) {
      case relay_v2::function::attach: {
        check(command.opcode == relay_v2::opcode::to_drive, "attach goes to the drive");
        const auto request = relay_v2::parse_session_request(data_of(command));
        check(request.has_value(), "a session request parses");
        if (!request->resume) {
          check(request->key.handle != handle_ || !attached_, "a session that was lost is not begun anew");
          if (request->key.handle != handle_) attached_ = false;
          handle_ = request->key.handle;
          forget_session();
        }
        check(request->key.handle == handle_, "what is resumed is the session that was made");
        return;
      }
      case relay_v2::function::tx:
        check(command.opcode == relay_v2::opcode::to_drive, "tx goes to the drive");
        check(call.handle == handle_, "it names the session");
        return examine_batch(command);
      case relay_v2::function::rx:
        check(command.opcode == relay_v2::opcode::to_host &&
                  command.timeout > std::chrono::milliseconds(call.wait_ms),
              "rx comes from the drive before it expires");
        check(call.wait_ms > 0, "rx waits");
        return check(call.handle == handle_, "it names the session");
      case relay_v2::function::capabilities:
        return check(command.opcode == relay_v2::opcode::to_host, "capabilities come from the drive");
      default:
        return check(command.opcode == relay_v2::opcode::no_data && command.data == nullptr,
                     "detach has no data");
    }
  }

  static uint32_t sequence_of(const Command& command) { return relay_v2::parse_call(command).sequence; }

  void examine_batch(const Command& command) {
    const auto bytes = data_of(command);
    const uint32_t sequence = sequence_of(command);
    const auto [known, first] = batches_.try_emplace(sequence, std::vector(bytes.begin(), bytes.end()));
    check(fuzz::same(known->second, bytes), "a batch is sent again as it was");
    sent_[&command] = known->second;
    auto batch = relay_v2::Batch::parse(bytes, sequence, relay_v2::Batch::From::host);
    check(batch.has_value(), "a batch of the host's parses");
    if (!first) return;
    check(batch->taken() >= told_taken_ && batch->taken() <= given_, "what it has taken was given");
    told_taken_ = batch->taken();
    while (const auto frame = batch->next()) examine_frame(*frame, sequence);
  }

  void examine_frame(const relay_v2::Frame& frame, uint32_t sequence) {
    const bool opens = frame.type == FrameType::open || frame.type == FrameType::listen;
    check(opens || !reset_.contains(frame.stream), "nothing follows RESET");
    uint64_t& last = last_frame_[frame.stream];
    check(!opens || frame.stream % 2 == 1, "its numbers are odd");
    check(!opens || last == 0 || last <= most_taken_, "none is used again before it is free");
    last = sequence;
    if (opens) {
      reset_.erase(frame.stream);
      return;
    }
    size_t cost = frame.payload.size();
    switch (frame.type) {
      case FrameType::reset:
        reset_.insert(frame.stream);
        return;
      case FrameType::datagram:
        cost += relay_v2::datagram_cost;
        break;
      case FrameType::data:
        break;
      default:
        return;
    }
    uint64_t& credit = credit_[frame.stream];
    check(cost <= credit, "nothing is sent without credit");
    credit -= cost;
  }

  void forget_session() {
    batches_.clear();
    credit_.clear();
    reset_.clear();
    last_frame_.clear();
    told_taken_ = given_ = 0;
    most_taken_ = 0;
  }

  // --- steps ---

  void step() {
    switch (input_.below(15)) {
      case 0:
        return programs_.connect(*dialect_);
      case 1:
        if (clock_.step()) return port_.end_batch();
        return;
      case 2:
        return wait(std::chrono::milliseconds(input_.number<uint16_t>()));
      case 3:
      case 4:
      case 5:
        return programs_.act();
      case 12:
        return listen();
      case 13:
        if (!listeners_.empty()) close_listener(input_.below(listeners_.size()));
        return;
      case 14:
        asked_ += dialect_->ask_counters([this](const DriveCounters&) { ++told_counters_; });
        return;
      default:
        return answer();
    }
  }

  void wait(Clock::Duration time) {
    bool over = false;
    clock_.after(time, [&over] { over = true; });
    for (int events = 0; !over && clock_.step(); ++events) check(events < 100'000, "waiting ends");
    port_.end_batch();
  }

  // --- listeners, which may be closed in any state, and from within whatever they tell ---

  void listen() {
    const auto backlog = 1 + static_cast<uint32_t>(input_.below(max_backlog));
    auto listener = dialect_->listen(programs_.any_endpoint(), backlog, this);
    if (listener) listeners_.push_back(std::move(*listener));
  }

  void close_listener(size_t which) { listeners_.erase(listeners_.begin() + static_cast<ptrdiff_t>(which)); }

  void maybe_close(const Listener& listener) {
    const auto held =
        std::ranges::find_if(listeners_, [&](const auto& each) { return each.get() == &listener; });
    check(held != listeners_.end(), "a listener that was closed tells nothing");
    if (input_.below(4) == 3) listeners_.erase(held);
  }

  void on_listening(Listener& listener, const sockaddr_storage&) override { maybe_close(listener); }
  void on_listen_failed(Listener& listener, const Error& error) override {
    check(error.code != 0 && !error.text.empty(), "a failure is told");
    maybe_close(listener);
  }
  void on_accepted(Listener& listener, StreamHandle& stream) override {
    if (input_.below(4) != 3) programs_.take(stream);
    maybe_close(listener);
  }

  // --- what the drive answers ---

  void answer() {
    if (port_.held() == 0) return;
    const size_t which = input_.below(port_.held());
    Command& command = port_.at(which);
    const bool to_host = command.opcode == relay_v2::opcode::to_host;
    Completion completion;
    switch (input_.below(8)) {
      case 0:
        completion.error = 1 + static_cast<int>(input_.below(133));
        break;
      case 1:
        completion.status = input_.number<uint16_t>();
        break;
      case 2:
        completion.status = status::vendor_errno(static_cast<int>(input_.below(134)));
        break;
      case 3:
        completion.dw0 = input_.number<uint32_t>();
        if (to_host) fill_with_anything(data_of(command));
        break;
      default:
        completion.dw0 = to_host ? fill_well(command) : 1 + static_cast<uint32_t>(input_.below(2));
    }
    const uint8_t function = relay_v2::function_of(command);
    if (completion.ok() && function == relay_v2::function::attach) attached_ = true;
    if (completion.ok() && function == relay_v2::function::rx) grant(command, completion.dw0);
    if (function == relay_v2::function::tx) {
      check(fuzz::same(sent_[&command], data_of(command)), "a batch stays as it is while the drive has it");
    }
    port_.complete(which, completion);
    if (input_.below(4) != 0) port_.end_batch();
  }

  void fill_with_anything(std::span<uint8_t> data) {
    std::ranges::copy(input_.bytes(std::min<size_t>(data.size(), input_.number<uint8_t>())), data.begin());
  }

  uint32_t fill_well(const Command& command) {
    if (relay_v2::function_of(command) == relay_v2::function::rx) return write_batch(command);
    tell_capabilities(command, input_.below(4) == 1 ? input_.number<uint8_t>() : 0);
    return relay_v2::capability_bytes;
  }

  void tell_capabilities(const Command& command, uint16_t epoch) {
    relay_v2::Capabilities page = capabilities_;
    store_le(page.epoch.data(), epoch);
    if (input_.below(8) == 1) page.lease_s = input_.number<uint32_t>() | 1;
    encode(page, data_of(command));
    lease_s_ = std::max(lease_s_, page.lease_s);
  }

  // Frames of every type a drive may send, of streams that are, were or never will be; in a batch with the
  // right sequence and length, mostly. Nothing: the keep-alive.
  uint32_t write_batch(const Command& command) {
    relay_v2::BatchWriter writer(data_of(command).first(capabilities_.max_batch));
    for (size_t frames = input_.below(8); frames > 0; --frames) {
      constexpr FrameType types[] = {FrameType::opened, FrameType::opened,    FrameType::data,
                                     FrameType::data,   FrameType::window,    FrameType::fin,
                                     FrameType::reset,  FrameType::listening, FrameType::accepted,
                                     FrameType::stat,   FrameType::datagram};
      const FrameType type = types[input_.below(std::size(types))];
      const uint32_t stream = type == FrameType::stat ? 0 : static_cast<uint32_t>(input_.below(24));
      const bool extreme = input_.below(8) == 0;
      const uint32_t value = extreme ? input_.number<uint32_t>() : input_.number<uint16_t>();
      const size_t size = payload_size(type);
      if (!writer.fits(size)) break;
      const auto payload = writer.append(type, stream, type == FrameType::reset ? value % 4096 : value, size);
      fuzz::fill(payload, 4);
      if (type == FrameType::accepted) store_le(payload.data(), static_cast<uint32_t>(input_.below(24)));
    }
    if (writer.empty()) return 0;
    const uint64_t sequence = sequence_of(command) + (input_.below(16) == 0 ? 1 : 0);
    // Of the host's batches mostly all that it has sent.
    const size_t how = input_.below(8);
    const uint64_t taken = how < 6    ? batches_.size()
                           : how == 6 ? batches_.size() / 2
                                      : input_.number<uint32_t>();
    const uint32_t size = writer.finish(sequence, taken);
    return input_.below(16) == 0 ? size + 8 : size;
  }

  size_t payload_size(FrameType type) {
    switch (type) {
      case FrameType::opened:
        return relay_v2::opened_size;
      case FrameType::accepted:
        return relay_v2::accepted_size;
      case FrameType::listening:
        return relay_v2::address_size;
      case FrameType::stat:
        return relay_v2::counters_size;
      case FrameType::data:
      case FrameType::datagram:
        return input_.below(4) == 0 ? 1 + input_.number<uint16_t>() : 1 + input_.below(64);
      default:
        return 0;
    }
  }

  // What the host may send at most, should it believe all of this.
  void grant(const Command& command, uint32_t size) {
    if (size > command.data_length) return;
    auto batch = relay_v2::Batch::parse(data_of(command).first(size), sequence_of(command),
                                        relay_v2::Batch::From::drive);
    if (batch) {
      given_ = std::max(given_, sequence_of(command));
      most_taken_ = std::max<uint64_t>(most_taken_, batch->taken());
    }
    while (const auto frame = batch ? batch->next() : std::nullopt) {
      if (frame->type == FrameType::accepted) reset_.erase(frame->stream);  // a number that is used again
      if (frame->type == FrameType::opened || frame->type == FrameType::accepted ||
          frame->type == FrameType::window)
        credit_[frame->stream] += frame->value;
    }
  }

  Input input_;
  uint32_t lease_s_ = 0;  // the longest told
  unsigned told_ = 0;     // sentences for people
  sim::VirtualClock clock_;
  const relay_v2::Capabilities capabilities_;
  uint64_t handle_ = 0;                                  // of the session that is, or is to be made
  bool attached_ = false;                                // the drive has said so
  std::map<uint64_t, std::vector<uint8_t>> batches_;     // by sequence, of this session
  std::map<const Command*, std::vector<uint8_t>> sent_;  // as they were submitted
  std::map<uint32_t, uint64_t> credit_;                  // by stream
  std::set<uint32_t> reset_;                             // streams, by the host
  std::map<uint32_t, uint64_t> last_frame_;              // by stream, the last batch with a frame of it
  uint32_t told_taken_ = 0, given_ = 0;  // of the drive's batches: that the host took, that it was given
  uint64_t most_taken_ = 0;              // of the host's batches, that it may believe to be taken
  uint64_t asked_ = 0, told_counters_ = 0;
  fuzz::HeldPort port_;
  std::unique_ptr<DialectV2> dialect_;
  fuzz::Programs programs_;
  std::vector<ListenerHandle> listeners_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Run(Input(data, size)).go();
  return 0;
}
