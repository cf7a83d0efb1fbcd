// The drive's end of the second generation under commands no host of ours would send: batches that break any
// rule, at any time, from within any completion. What it gives back parses, is the same when it is asked for
// again, and keeps to the credit it was given; each command completes once, and in the end nothing is left.
// There are two hosts, and neither ever reaches what it has not attached itself.
//
// The services are models that the input moves. Those of tests/sim know honest hosts only: here anything may
// be sent to anybody, datagrams and listeners included.
//
// Input: options, then steps (see step()).
#include <cerrno>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "csd/v2/session_table.hpp"
#include "libnvsock/nvme/completion_delivery.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/sim/virtual_clock.hpp"

namespace {

using namespace nvsock;
using namespace std::chrono_literals;
using fuzz::check;
using fuzz::Input;
using relay_v2::FrameType;

// A socket inside the drive. Outlives the service that stands for it.
struct Model {
  csd::Service::Observer* observer = nullptr;
  bool datagram = false, connecting = true, connected = false, closed = false, shut_down = false;
  bool awaits_readable = false, awaits_writable = false;
  std::deque<size_t> waiting;  // sizes: of datagrams, or of pieces of a stream
  bool ended = false;
  int error =
      0;  // of receive() behind what is waiting, and of send(); a datagram socket forgets it when told
  size_t room = 0;  // for send()

  bool readable() const { return !waiting.empty() || ended || error != 0; }
};

class FuzzService final : public csd::Service {
 public:
  explicit FuzzService(std::shared_ptr<Model> model) : model_(std::move(model)) {}
  ~FuzzService() override { model_->closed = true; }

  ssize_t receive(std::span<uint8_t> into, bool& datagram) override {
    check(model_->connected && !into.empty(), "a connected service is asked for something");
    datagram = model_->datagram;
    if (model_->waiting.empty()) {
      if (model_->error != 0) return -told_error();
      datagram = false;
      return model_->ended ? 0 : -EAGAIN;
    }
    size_t& front = model_->waiting.front();
    const size_t size = std::min(front, into.size());
    fuzz::fill(into.first(size), 's');
    const bool cut = datagram && front > size;
    front -= size;
    if (datagram || front == 0) model_->waiting.pop_front();
    return cut ? -EMSGSIZE : static_cast<ssize_t>(size);
  }
  ssize_t send(std::span<const uint8_t> from) override {
    check(model_->connected && !model_->shut_down, "bytes go to a service that takes them");
    if (model_->error != 0) return -told_error();
    if (model_->room == 0 || (model_->datagram && from.size() > model_->room)) return -EAGAIN;
    const size_t size = std::min(from.size(), model_->room);
    model_->room -= size;
    return static_cast<ssize_t>(size);
  }
  void await_readable() override {
    check(!std::exchange(model_->awaits_readable, true), "readability is awaited once");
  }
  void await_writable() override {
    check(!std::exchange(model_->awaits_writable, true), "so is writability");
  }
  void shut_down_sending() override { check(!std::exchange(model_->shut_down, true), "an end is told once"); }
  void close_in_order() override {}
  relay_v2::Opened addresses() const override { return {}; }

  const std::shared_ptr<Model>& model() const { return model_; }

 private:
  int told_error() const { return model_->datagram ? std::exchange(model_->error, 0) : model_->error; }

  const std::shared_ptr<Model> model_;
};

struct ListenerModel {
  csd::ServiceListener::Observer* observer = nullptr;
  bool paused = false, closed = false;
};

class FuzzListener final : public csd::ServiceListener {
 public:
  explicit FuzzListener(std::shared_ptr<ListenerModel> model) : model_(std::move(model)) {}
  ~FuzzListener() override { model_->closed = true; }
  void pause() override { model_->paused = true; }
  void resume() override { model_->paused = false; }
  sockaddr_storage address() const override { return {}; }

 private:
  const std::shared_ptr<ListenerModel> model_;
};

class FuzzServices final : public csd::ServiceFactory {
 public:
  std::unique_ptr<csd::Service> connect(csd::Client, const relay_v2::Target& target,
                                        csd::Service::Observer& observer) override {
    check(!target.node.empty() && target.node.size() <= relay_v2::max_node, "a target was checked");
    const auto model = add();
    model->observer = &observer;
    model->datagram = target.type == SocketType::datagram;
    return std::make_unique<FuzzService>(model);
  }
  void observe(csd::Service& service, csd::Service::Observer& observer) override {
    static_cast<FuzzService&>(service).model()->observer = &observer;
  }
  Result<std::unique_ptr<csd::ServiceListener>> listen(const relay_v2::Target& target, int backlog,
                                                       csd::ServiceListener::Observer& observer) override {
    check(backlog >= 1 && backlog <= 128, "a backlog was checked");
    if (target.port % 4 == 0) return Error{EADDRINUSE, "refused"};
    listeners.push_back(std::make_shared<ListenerModel>());
    listeners.back()->observer = &observer;
    return std::unique_ptr<csd::ServiceListener>(std::make_unique<FuzzListener>(listeners.back()));
  }

  std::shared_ptr<Model> add() {
    std::erase_if(services, [](const auto& model) { return model->closed; });
    return services.emplace_back(std::make_shared<Model>());
  }
  bool all_closed() const {
    return std::ranges::all_of(services, [](const auto& model) { return model->closed; }) &&
           std::ranges::all_of(listeners, [](const auto& model) { return model->closed; });
  }

  std::vector<std::shared_ptr<Model>> services;
  std::vector<std::shared_ptr<ListenerModel>> listeners;
};

class Run final : private csd::CompletionQueue {
 public:
  explicit Run(Input input) : input_(input), table_(clock_, services_, *this, options()) {}

  void go() {
    for (steps_ = 0; !input_.empty() && steps_ < most_steps; ++steps_) step();
    steps_ = most_steps;  // nothing follows any more
    // The host is silent from here on: leases end, closed streams have lingered, and waiting commands are
    // back.
    for (int events = 0; clock_.step(); ++events) {
      check(posted_.empty(), "what completes later is flushed");
      check(events < 100'000, "time does not go round in circles");
    }
    check(table_.sessions() == 0, "sessions end with their lease");
    check(services_.all_closed(), "services end with their sessions");
    check(std::ranges::all_of(sent_, [](const auto& sent) { return sent->completed || sent->forgotten; }),
          "every command completes");
  }

 private:
  struct Sent : Command {
    Run* run = nullptr;
    std::unique_ptr<uint8_t[]> bytes;  // of exactly data_length, for the sanitizer
    std::vector<uint8_t> before;       // to the drive: must not change
    size_t host = 0;
    bool follows = false;  // from within the completion comes another command
    bool ended = false;    // names a session that has ended
    bool completed = false, forgotten = false;
  };

  csd::SessionTableOptions options() {
    constexpr uint32_t batches[] = {relay_v2::min_batch, 4104, 65536, relay_v2::max_batch};
    constexpr uint32_t windows[] = {1, 64, 4096, 256 * 1024};
    csd::SessionTableOptions options;
    options.epoch = {1, 2, 3};
    options.max_sessions = 2;
    options.max_streams = 1 + static_cast<uint32_t>(input_.below(6));
    options.max_batch = batches[input_.below(4)];
    options.window = windows[input_.below(4)];
    options.tx_window = static_cast<uint16_t>(1 + input_.below(4));
    options.rx_window = static_cast<uint16_t>(1 + input_.below(4));
    max_batch_ = options.max_batch;
    rx_window_ = options.rx_window;
    return options;
  }

  // --- steps ---

  void step() {
    switch (input_.below(16)) {
      case 0:
        return attach();
      case 1:
        return send(relay_v2::function::detach, any_session(), 0, {});
      case 2:
        return anything();
      case 3:
      case 4:
      case 5:
        return tx_well_formed();
      case 6:
        return tx_anything();
      case 7:
      case 8:
        return rx();
      case 9:
        table_.controller_reset();
        for (const auto& sent : sent_) sent->forgotten |= !sent->completed;
        return;
      case 10:
        clock_.step();
        return check(posted_.empty(), "what completes later is flushed");
      case 11:
        return connection_comes_in();
      default:
        move_service();
        check(posted_.empty(), "what a service brings about is flushed");
    }
  }

  // By whom a command comes, and the handle it names.
  using Key = std::pair<size_t, uint64_t>;

  // The newest or the one before, of the host that made it; sometimes any, of anybody.
  Key any_session() {
    const uint32_t value = input_.number<uint8_t>();
    if (value < 240) return value % 2 == 0 ? last_ : before_;
    if (value < 250) return {1 - last_.first, last_.second};
    const size_t host = input_.below(2);
    return {host, input_.number<uint8_t>()};
  }

  void attach() {
    const bool resume = input_.below(4) == 0;
    const auto version = static_cast<uint16_t>(input_.below(16) == 0 ? 2 : relay_v2::version);
    const size_t how = input_.below(8);  // mostly another one; else one of before, by its host or the other
    const uint64_t handle = how < 5 ? last_.second + 1 : how < 7 ? last_.second : before_.second;
    relay_v2::SessionRequest request{
        .resume = resume,
        .version = version,
        .features = input_.below(8) == 7 ? input_.number<uint8_t>() : relay_v2::feature::all,
        .epoch = {1, 2, static_cast<uint8_t>(input_.below(16) == 15 ? 0 : 3)},
        .key = {.handle = handle, .secret = {static_cast<uint8_t>(input_.below(8) == 7 ? 1 : 0)}}};
    std::vector<uint8_t> bytes(relay_v2::session_request_size);
    encode(request, bytes);
    if (input_.below(16) == 0) std::ranges::copy(input_.bytes(16), bytes.begin());
    send(relay_v2::function::attach, {how == 6 ? 1 - last_.first : input_.below(2), 0}, 0, bytes);
  }

  void tx_well_formed() {
    std::vector<uint8_t> bytes(relay_v2::max_batch);
    relay_v2::BatchWriter writer({bytes.data(), max_batch_});
    const size_t frames = 1 + input_.below(6);
    for (size_t i = 0; i < frames; ++i) append_frame(writer);
    if (writer.empty()) return;
    const uint64_t sequence = next_tx();
    const uint64_t taken = input_.below(8) == 7 ? input_.number<uint32_t>() : rx_;
    bytes.resize(writer.finish(sequence, taken));
    for (size_t i = input_.below(8) == 1 ? 1 + input_.below(4) : 0; i > 0; --i) {
      bytes[input_.number<uint16_t>() % bytes.size()] = input_.number<uint8_t>();
    }
    send(relay_v2::function::tx, any_session(), sequence, bytes);
  }

  // The one after the last, mostly.
  uint64_t next_tx() {
    const size_t how = input_.below(16);
    if (how < 12) return ++tx_;
    if (how == 15) return input_.number<uint64_t>();
    return tx_ + how - 11;
  }

  void append_frame(relay_v2::BatchWriter& writer) {
    constexpr FrameType types[] = {
        FrameType::open,   FrameType::open,   FrameType::open,     FrameType::listen, FrameType::data,
        FrameType::data,   FrameType::data,   FrameType::datagram, FrameType::fin,    FrameType::datagram,
        FrameType::window, FrameType::window, FrameType::stat,     FrameType::reset};
    const FrameType type = types[input_.below(std::size(types))];
    const bool is_new = type == FrameType::open || type == FrameType::listen;
    const size_t which = input_.below(32);
    const uint32_t stream = type == FrameType::stat ? 0
                            : is_new && which < 16  ? std::exchange(next_number_, next_number_ + 2)
                                                    : static_cast<uint32_t>(which % 16);
    const uint32_t value = input_.below(8) == 7 ? input_.number<uint32_t>() : input_.number<uint16_t>();
    if (is_new) {
      const std::string node(1 + input_.below(relay_v2::max_node), 'n');
      const relay_v2::Target target{.type = input_.below(3) == 0 ? SocketType::datagram : SocketType::stream,
                                    .family = {},
                                    .port = input_.number<uint8_t>(),
                                    .node = node};
      if (!writer.fits(encoded_size(target))) return;
      encode(target, writer.append(type, stream, type == FrameType::listen ? 1 + value % 128 : value,
                                   encoded_size(target)));
      return;
    }
    const bool bytes = type == FrameType::data || type == FrameType::datagram;
    const size_t size = !bytes                 ? 0
                        : input_.below(3) == 0 ? 1 + input_.number<uint16_t>() % relay_v2::max_datagram
                                               : 1 + input_.below(64);
    if (!writer.fits(size)) return;
    fuzz::fill(writer.append(type, stream,
                             type == FrameType::window  ? value | 1
                             : type == FrameType::reset ? value % 4096
                                                        : 0,
                             size),
               'h');
  }

  void tx_anything() {
    const auto given = input_.bytes(input_.number<uint8_t>());
    std::vector<uint8_t> bytes(given.begin(), given.end());
    bytes.resize((bytes.size() + 3) & ~size_t{3});
    const Key session = any_session();
    send(relay_v2::function::tx, session, next_tx(), bytes);
  }

  void rx() {
    constexpr uint32_t sizes[] = {relay_v2::max_batch, relay_v2::min_batch, 8192, 64};
    const size_t how = input_.below(16);
    uint64_t sequence = rx_ + 1;
    if (how == 13) sequence = input_.number<uint64_t>();
    if (how == 14) sequence = rx_;
    if (how == 15) sequence = rx_ + input_.below(8);
    const Key session = any_session();
    const uint32_t size = sizes[input_.below(4)];
    const bool far = input_.below(8) == 7;
    Sent& command = make(
        session,
        {.function = relay_v2::function::rx,
         .handle = session.second,
         .sequence = static_cast<uint32_t>(sequence),
         .wait_ms = input_.number<uint16_t>() % (relay_v2::max_wait_ms + 1),
         .distance = static_cast<uint32_t>(far ? input_.number<uint8_t>() : input_.below(rx_window_ + 1u))},
        size);
    execute(command);
  }

  void anything() {
    const auto opcode = static_cast<uint8_t>(0xC0 + input_.below(4));
    const auto function = static_cast<uint8_t>(input_.below(8));
    const Key session = any_session();
    Sent& command =
        make(session, {.function = function, .handle = session.second, .sequence = input_.number<uint16_t>()},
             static_cast<uint32_t>(input_.below(256)) * 32);
    command.opcode = opcode;
    if (input_.below(8) == 0) command.cdw11 = input_.number<uint8_t>();
    if (input_.below(2) == 0) command.cdw10 = input_.number<uint32_t>() % (relay_v2::max_batch / 4 + 16);
    if (input_.below(8) == 0) command.nsid = 1;
    command.cdw12 |= input_.number<uint32_t>() & ~7u;
    const auto data = std::span(command.bytes.get(), command.data_length);
    std::ranges::copy(input_.bytes(std::min<size_t>(64, data.size())), data.begin());
    execute(command);
  }

  void send(uint8_t function, const Key& session, uint64_t sequence, const std::vector<uint8_t>& bytes) {
    Sent& command =
        make(session,
             {.function = function, .handle = session.second, .sequence = static_cast<uint32_t>(sequence)},
             static_cast<uint32_t>(bytes.size()));
    std::ranges::copy(bytes, command.bytes.get());
    execute(command);
  }

  Sent& make(const Key& session, const relay_v2::Call& call, uint32_t size) {
    Sent& command = *sent_.emplace_back(std::make_unique<Sent>());
    command.run = this;
    command.host = session.first;
    command.data_length = size;
    encode(call, command);
    command.bytes.reset(new uint8_t[size]());
    command.data = size > 0 ? command.bytes.get() : nullptr;
    command.done = [](Command& done) {
      auto& own = static_cast<Sent&>(done);
      own.run->completed(own);
    };
    return command;
  }
  static Key key_of(const Sent& command) { return {command.host, relay_v2::parse_call(command).handle}; }
  static bool is(const Sent& command, uint8_t function) { return relay_v2::function_of(command) == function; }

  void execute(Sent& command) {
    if (!csd::SessionTable::handles(command)) {
      command.completed = true;
      return;
    }
    command.before.assign(command.bytes.get(), command.bytes.get() + command.data_length);
    command.follows = input_.below(4) == 3;
    const bool batch = is(command, relay_v2::function::tx) || is(command, relay_v2::function::rx);
    command.ended = batch && ended_.contains(key_of(command));
    note_credit(command);
    table_.execute(command, hosts_[command.host]);
    flush();
  }

  // --- what the drive does ---

  void post(Command& command) override { posted_.push(command); }
  void flush() override {
    posted_.deliver([] {});
  }

  void completed(Sent& command) {
    check(!command.forgotten, "a command forgotten with a reset is left alone");
    check(!std::exchange(command.completed, true), "a command completes once");
    const Completion& completion = command.completion;
    const bool to_host = command.opcode == relay_v2::opcode::to_host;
    check(completion.error == 0, "a drive gives a status");
    if (!to_host) check(fuzz::same(command.before, data_of(command)), "the host's bytes stay");
    check(!command.ended || !completion.ok(), "a session that has ended stays so");
    const bool batch = is(command, relay_v2::function::tx) || is(command, relay_v2::function::rx);
    check(!batch || !completion.ok() || attached_.contains(key_of(command)),
          "nobody reaches what it has not attached");
    const bool detached = completion.ok() && is(command, relay_v2::function::detach);
    const bool broke = is(command, relay_v2::function::tx) && status::errno_of(completion.status) == EPROTO;
    // A handle that was never used may be, later.
    if ((detached || broke) && attached_.contains(key_of(command))) ended_.insert(key_of(command));
    if (completion.ok() && is(command, relay_v2::function::attach)) attached(command);
    if (completion.ok() && is(command, relay_v2::function::rx) && completion.dw0 > 0) received(command);
    command.bytes.reset();  // nobody has a use for it any more, the drive least of all
    command.before = {};
    if (command.follows && ++steps_ < most_steps) {  // as a host does, and so on
      const size_t what = input_.below(4);
      if (what == 0) send(relay_v2::function::detach, any_session(), 0, {});
      if (what == 1) rx();
      if (what == 2) tx_well_formed();
      if (what == 3) tx_anything();
    }
  }

  void attached(const Sent& command) {
    const auto request = relay_v2::parse_session_request(data_of(command));
    check(request.has_value(), "what is attached with parses");
    const Key key{command.host, request->key.handle};
    const auto [known, first] = attached_.try_emplace(key, request->key.secret);
    check(!ended_.contains(key), "a session that has ended is not begun anew");
    check(first || relay_v2::equal_secrets(known->second, request->key.secret),
          "nobody attaches without the secret");
    check(!first || !request->resume, "nothing is resumed that never was");
    if (!first) return;
    before_ = std::exchange(last_, key);
    tx_ = rx_ = 0;
    next_number_ = 1;
  }

  void received(const Sent& command) {
    const uint64_t sequence = relay_v2::parse_call(command).sequence;
    const Key key = key_of(command);
    check(command.completion.dw0 <= command.data_length, "a batch fits the buffer");
    const auto bytes = data_of(command).first(command.completion.dw0);
    if (key == last_) rx_ = std::max(rx_, sequence);
    const auto [known, first] = given_.try_emplace({key, sequence}, std::vector(bytes.begin(), bytes.end()));
    check(fuzz::same(known->second, bytes), "a batch asked for again is the same");
    auto batch = relay_v2::Batch::parse(bytes, sequence, relay_v2::Batch::From::drive);
    check(batch.has_value(), "a batch of the drive's parses");
    while (const auto frame = first ? batch->next() : std::nullopt) {
      const bool datagram = frame->type == FrameType::datagram;
      if (frame->type != FrameType::data && !datagram) continue;
      const size_t cost = frame->payload.size() + (datagram ? relay_v2::datagram_cost : 0);
      uint64_t& credit = credit_[{key, frame->stream}];
      check(cost <= credit, "no byte is given without credit");
      credit -= cost;
    }
  }

  // What the drive may send at most, should all of this take effect.
  void note_credit(const Sent& command) {
    if (!is(command, relay_v2::function::tx)) return;
    auto batch = relay_v2::Batch::parse(data_of(command), relay_v2::parse_call(command).sequence,
                                        relay_v2::Batch::From::host);
    while (const auto frame = batch ? batch->next() : std::nullopt) {
      if (frame->type == FrameType::open || frame->type == FrameType::window)
        credit_[{key_of(command), frame->stream}] += frame->value;
    }
  }

  static std::span<uint8_t> data_of(const Sent& command) {
    return {command.bytes.get(), command.data_length};
  }

  // --- what the services do ---

  void connection_comes_in() {
    if (services_.listeners.empty()) return;
    const auto listener = services_.listeners[input_.below(services_.listeners.size())];
    if (listener->closed || listener->paused) return;
    const auto model = services_.add();
    model->connecting = false;
    model->connected = true;
    listener->observer->on_accepted(std::make_unique<FuzzService>(model));
  }

  void move_service() {
    if (services_.services.empty()) return;
    const auto model = services_.services[input_.below(services_.services.size())];
    if (model->closed) return;
    if (model->connecting) {
      const int error = input_.below(4) == 3 ? 1 + static_cast<int>(input_.below(133)) : 0;
      model->connecting = false;
      model->connected = error == 0;
      return model->observer->on_connected(error);
    }
    switch (input_.below(4)) {
      case 0:
      case 1:
        if (!model->ended) model->waiting.push_back(piece(model->datagram));
        break;
      case 2:
        if (input_.below(4) == 0)
          model->error = input_.below(2) == 0 ? ECONNREFUSED : 1 + static_cast<int>(input_.below(133));
        else if (!model->datagram)
          model->ended = true;
        if (model->error == EAGAIN) model->error = ECONNRESET;
        break;
      default:
        model->room += 1 + input_.number<uint16_t>();
        if (!model->closed && std::exchange(model->awaits_writable, false))
          return model->observer->on_writable();
    }
    if (model->readable() && std::exchange(model->awaits_readable, false))
      return model->observer->on_readable();
    if (model->error != 0 && std::exchange(model->awaits_writable, false)) model->observer->on_writable();
  }

  size_t piece(bool datagram) {
    const size_t size = input_.below(3) == 0 ? 1 + input_.number<uint16_t>() : 1 + input_.below(64);
    return datagram ? size - 1 : size;
  }

  Input input_;
  uint32_t max_batch_ = 0;
  uint16_t rx_window_ = 0;
  sim::VirtualClock clock_;
  FuzzServices services_;
  csd::SessionTable table_;
  CompletionDelivery posted_;
  static constexpr int most_steps = 300;
  int steps_ = 0;
  std::vector<std::unique_ptr<Sent>> sent_;
  // Of the newest session: what was sent and received last, and the next number of a stream.
  Key last_{0, 1}, before_{1, 1};
  uint64_t tx_ = 0, rx_ = 0;
  uint32_t next_number_ = 1;
  const csd::HostName hosts_[2] = {{.id = {}, .nqn = "a"}, {.id = {}, .nqn = "b"}};
  std::map<Key, relay_v2::Secret> attached_;
  std::set<Key> ended_;  // that a detach or an error has ended; none is begun anew
  std::map<std::pair<Key, uint64_t>, std::vector<uint8_t>> given_;  // by sequence
  std::map<std::pair<Key, uint32_t>, uint64_t> credit_;             // by stream
};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Run(Input(data, size)).go();
  return 0;
}
