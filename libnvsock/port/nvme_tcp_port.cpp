#include "libnvsock/port/nvme_tcp_port.hpp"

#include <libnvme.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/base/background_call.hpp"
#include "libnvsock/base/buffer.hpp"
#include "libnvsock/base/quoted.hpp"
#include "libnvsock/base/random_id.hpp"
#include "libnvsock/nvme/completion_delivery.hpp"
#include "libnvsock/nvme/tls_transport.hpp"
#include "libnvsock/port/nvme_tcp_queue.hpp"
#include "libnvsock/port/nvme_tcp_socket.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;

constexpr unsigned max_in_flight = NvmeTcpQueue::slots - 1;  // one is the port's own
constexpr auto first_back_off = 20ms;
constexpr auto last_back_off = 1000ms;
constexpr auto ready_poll = 20ms;
// For a name to be looked up again. A name server that is slow, or behind the network that is broken, must
// not take the drive's lease away from a target that is where it was.
constexpr auto lookup_patience = 2000ms;

constexpr uint16_t connect_needs_authentication = 0x191;
constexpr size_t in_capsule_offset = 1800;  // ICDOFF in Identify Controller, figure 275

struct HostIdentity {
  std::string nqn;
  std::array<uint8_t, 16> id{};
};

// As nvme-cli does: the name from its file, or one made of a random UUID (section 4.5, second form).
HostIdentity identity_of(const NvmeTcpAddress& target) {
  HostIdentity host;
  if (nvme_uuid_random(host.id.data()) < 0) host.id = random_id();  // without /dev/urandom
  host.nqn = target.host;
  if (host.nqn.empty()) {
    const std::unique_ptr<char, decltype(&std::free)> from_file(nvmf_hostnqn_from_file(), std::free);
    if (from_file) host.nqn = from_file.get();
  }
  if (host.nqn.empty() || host.nqn.size() > nvme::max_nqn) {
    char uuid[NVME_UUID_LEN_STRING];
    nvme_uuid_to_string(host.id.data(), uuid);
    host.nqn = std::string("nqn.2014-08.org.nvmexpress:uuid:") + uuid;
  }
  return host;
}

std::string name_of(const NvmeTcpAddress& target) {
  switch (target.transport) {
    case NvmeTcpAddress::Transport::tcp:
      return target.endpoint.text();
    case NvmeTcpAddress::Transport::unix_socket:
      return printable(target.path);
    case NvmeTcpAddress::Transport::vsock:
      break;
  }
  return "vsock:" + std::to_string(target.cid) + ":" + std::to_string(target.vsock_port);
}

class NvmeTcpPort final : public CommandPort, private NvmeTcpQueue::Owner {
 public:
  NvmeTcpPort(asio::io_context& loop, const NvmeTcpAddress& target, Log log,
              const NvmeTcpPortOptions& options)
      : loop_(loop),
        clock_(loop),
        target_(target),
        name_(name_of(target)),
        host_(identity_of(target)),
        options_(options),
        log_(std::move(log)),
        timer_(clock_.make_timer()),
        lookup_(loop) {
    own_.port = this;
  }
  ~NvmeTcpPort() override { stop(); }

  // Reads the TLS key, if there is one. Before open().
  Result<void> prepare();
  // Brings the first connection up, or tells why not.
  Result<void> open(std::vector<SocketAddress> addresses);

  void submit(Command& command) override { waiting_.push(command); }

  void ring() override {
    pump();
    deliver();
  }

  bool stop() override {
    lookup_.drop();
    if (queue_ != nullptr) queue_->close();
    queue_.reset();
    timer_->disarm();
    waiting_ = {};
    completed_.clear();
    return true;
  }

  PortTraits traits() const override {
    return {.ordered = false, .max_in_flight = max_in_flight, .max_blocking = max_in_flight - 4};
  }

  std::string describe() const override {
    const nvme_tcp::Digests used = digests();
    return "NVMe/TCP to " + name_ + (tls_ == nullptr ? "" : " with TLS") +
           (used.header || used.data ? " with digests" : "") +
           (reconnects_ == 0 ? "" : ", reconnects: " + std::to_string(reconnects_));
  }

 private:
  // How far the connection is. From connect to identify, own_ is the command of that name.
  enum class Step : uint8_t {
    down,          // waits for the next attempt; no queue_
    lookup,        // the target's name is looked up again; no queue_
    greeting,      // socket and ICReq
    connect,       // Fabrics Connect
    capabilities,  // Property Get CAP
    enable,        // Property Set CC
    ready,         // Property Get CSTS, until it says so
    identify,      // Identify Controller
    live,          // clients' commands flow, and keep-alives
  };
  struct OwnCommand : Command {
    NvmeTcpPort* port = nullptr;
  };

  void on_ready() override;
  void on_completed(Command& command) override;
  void on_batch_end() override { deliver(); }
  void on_lost(const Error& error) override;

  nvme_tcp::Digests digests() const;
  void try_again();
  void attempt();
  void run_own(Step step);
  void on_own();
  std::string refusal() const;
  void go_live();
  void on_timer();
  void arm(Clock::TimePoint when);
  void arm_live();
  void pump();
  void deliver();

  asio::io_context& loop_;
  AsioClock clock_;
  const NvmeTcpAddress target_;
  const std::string name_;
  const HostIdentity host_;
  const NvmeTcpPortOptions options_;
  const Log log_;
  std::unique_ptr<TlsContext> tls_;       // null: bytes go as they are
  std::vector<SocketAddress> addresses_;  // of the target; never empty
  unsigned tries_ = 0;                    // since a connection was live
  SocketAddress address_;                 // tried last
  SocketAddress live_address_;            // that worked last; size 0: none
  std::unique_ptr<Clock::Timer> timer_;
  BackgroundCall<Result<std::vector<SocketAddress>>> lookup_;
  Clock::TimePoint timer_at_{};  // when it is due, while a connection is up
  std::shared_ptr<NvmeTcpQueue> queue_;
  Step step_ = Step::down;
  bool was_live_ = false;  // before that nothing is tried again: open() tells why
  Error error_;            // of the last connection
  Clock::TimePoint attempt_ends_{};
  Clock::TimePoint keep_alive_at_{};
  Clock::Duration back_off_ = first_back_off;
  OwnCommand own_;
  bool own_in_flight_ = false;
  alignas(8) uint8_t page_[page_size];  // data of own_
  CommandQueue waiting_;                // submitted, not with the controller
  CompletionDelivery completed_;
  unsigned in_flight_ = 0;  // of clients
  unsigned reconnects_ = 0;
};

// --- the connection ---

Result<void> NvmeTcpPort::prepare() {
  if (target_.tls_key.empty()) return {};
  const auto key = load_tls_key(target_.tls_key);
  if (!key) return key.error();
  auto context = TlsContext::for_host(*key, host_.nqn, target_.subsystem, target_.tls_identity);
  if (!context) return context.error();
  tls_ = std::move(*context);
  return {};
}

Result<void> NvmeTcpPort::open(std::vector<SocketAddress> addresses) {
  addresses_ = std::move(addresses);
  for (size_t i = 0; i < addresses_.size(); ++i) {
    attempt();
    loop_.restart();
    while (step_ != Step::down && step_ != Step::live) loop_.run_one();
    loop_.restart();
    if (step_ == Step::live) return {};
  }
  return Error{error_.code, "cannot use " + name_ + ": " + error_.text};
}

// Unless somebody chose: what crosses a network is checked end to end. TCP's own checksum is weak, and not
// computed where the bytes are made and used. TLS has a better one; on the way to this very machine there is
// nobody to change a bit.
nvme_tcp::Digests NvmeTcpPort::digests() const {
  if (target_.digests) return *target_.digests;
  const bool needed = tls_ == nullptr && leaves_machine(address_);
  return {.header = needed, .data = needed};
}

// A target may have moved since its name was looked up.
void NvmeTcpPort::try_again() {
  const bool named =
      target_.transport == NvmeTcpAddress::Transport::tcp && target_.endpoint.kind == Endpoint::Kind::name;
  if (!named) return attempt();
  step_ = Step::lookup;
  if (!lookup_.running()) {
    const int error = lookup_.start([target = target_] { return addresses_of(target); },
                                    [this](const Result<std::vector<SocketAddress>>& found) {
                                      // One that has no answer now is where it was.
                                      if (found && !found->empty()) addresses_ = *found;
                                      if (step_ == Step::lookup) attempt();
                                    });
    if (error != 0) return attempt();
  }
  arm(clock_.now() + lookup_patience);
}

// Tries the next address, beginning with the one that worked.
void NvmeTcpPort::attempt() {
  const auto worked = std::ranges::find_if(addresses_, [this](const SocketAddress& known) {
    return known.size == live_address_.size && std::memcmp(known.get(), live_address_.get(), known.size) == 0;
  });
  const size_t first = worked == addresses_.end() ? 0 : static_cast<size_t>(worked - addresses_.begin());
  address_ = addresses_[(first + tries_++) % addresses_.size()];
  step_ = Step::greeting;
  attempt_ends_ = clock_.now() + options_.attempt;
  const int fd = connect_to(address_);
  if (fd < 0) return on_lost({errno, std::strerror(errno)});
  arm(attempt_ends_);
  queue_ = std::make_shared<NvmeTcpQueue>(loop_, digests(), static_cast<Owner&>(*this));
  queue_->start(fd, tls_ != nullptr ? tls_->over(fd) : make_plain_transport(fd));
}

void NvmeTcpPort::on_lost(const Error& error) {
  queue_.reset();
  own_in_flight_ = false;
  const bool news = error.text != error_.text;
  error_ = error;
  if (step_ == Step::live) {
    back_off_ = first_back_off;
    if (log_) {
      log_(LogLevel::warning, "the connection to " + name_ + " is lost (" + error.text + "): trying again");
    }
  } else {
    back_off_ = std::min<Clock::Duration>(back_off_ * 2, last_back_off);
    // Such as another key: what does not pass by itself.
    if (was_live_ && news && error.code == EPROTO && log_) {
      log_(LogLevel::warning, "cannot use " + name_ + ": " + error.text + "; still trying");
    }
  }
  step_ = Step::down;
  if (was_live_) {
    arm(clock_.now() + back_off_);
  } else {
    timer_->disarm();
  }
  pump();
}

void NvmeTcpPort::on_ready() {
  run_own(Step::connect);
}

// Puts the command of this step together and submits it; flushed by whoever called us.
void NvmeTcpPort::run_own(Step step) {
  step_ = step;
  static_cast<Command&>(own_) = Command();
  own_.timeout = options_.keep_alive;
  own_.done = [](Command& command) { static_cast<OwnCommand&>(command).port->on_own(); };
  switch (step) {
    case Step::connect:
      nvme::encode({.queue = 0,
                    .queue_size = NvmeTcpQueue::entries,
                    .keep_alive_ms = static_cast<uint32_t>(options_.keep_alive.count())},
                   own_);
      nvme::encode({.host_id = host_.id, .subsystem = target_.subsystem, .host = host_.nqn},
                   std::span(page_).first<nvme::connect_data_size>());
      own_.data = page_;
      own_.data_length = nvme::connect_data_size;
      break;
    case Step::capabilities:
      nvme::encode_property_get({.wide = true, .offset = nvme::property::cap}, own_);
      break;
    case Step::enable:
      nvme::encode_property_set(
          {.offset = nvme::property::cc, .value = nvme::cc::enable | nvme::cc::entry_sizes}, own_);
      break;
    case Step::ready:
      nvme::encode_property_get({.offset = nvme::property::csts}, own_);
      break;
    case Step::identify:
      own_.opcode = opcode::identify;
      own_.cdw10 = 1;  // CNS 01h: the controller
      own_.data = page_;
      own_.data_length = page_size;
      break;
    default:
      own_.opcode = nvme::opcode::keep_alive;
      break;
  }
  own_in_flight_ = true;
  queue_->submit(own_);
}

void NvmeTcpPort::on_own() {
  own_in_flight_ = false;
  if (step_ == Step::down || queue_ == nullptr) return;  // of a connection that is lost
  const auto queue = queue_;
  const Completion& completion = own_.completion;
  if (!completion.ok()) return queue->fail(EIO, refusal());
  switch (step_) {
    case Step::connect:
      // Section 6.3: bits 17:16 of the result.
      if ((completion.dw0 >> 16 & 3) != 0) {
        return queue->fail(EACCES, "it demands authentication, which is not supported");
      }
      run_own(Step::capabilities);
      break;
    case Step::capabilities:
      run_own(Step::enable);
      break;
    case Step::enable:
      run_own(Step::ready);
      break;
    case Step::ready:
      if ((completion.dw0 & nvme::csts::fatal) != 0) return queue->fail(EIO, "its controller has failed");
      if ((completion.dw0 & nvme::csts::ready) == 0) return arm(clock_.now() + ready_poll);
      run_own(Step::identify);
      break;
    case Step::identify:
      if (load_le<uint16_t>(page_ + in_capsule_offset) != 0) {
        return queue->fail(ENOTSUP, "it wants a gap before the data in a capsule, which is not supported");
      }
      go_live();
      break;
    default:
      break;
  }
  queue->flush();
}

// Why the command of this step failed.
std::string NvmeTcpPort::refusal() const {
  const Completion& completion = own_.completion;
  char number[8];
  std::snprintf(number, sizeof number, "%03xh", completion.status);
  if (step_ != Step::connect) return std::string("its controller does not start: status ") + number;
  constexpr uint32_t in_data = 1 << 16;  // section 6.3, figure of Connect Invalid Parameters
  const std::string host = "it does not admit this host, " + quoted(host_.nqn) + "; is ?hostnqn= right?";
  switch (completion.status) {
    case nvme::status::connect_invalid_parameters:
      if (completion.dw0 == (in_data | nvme::connect_offset::subsystem)) {
        return "it has no subsystem " + quoted(target_.subsystem);
      }
      if (completion.dw0 == (in_data | nvme::connect_offset::host)) return host;
      break;
    case nvme::status::connect_invalid_host:
      return host;
    case nvme::status::connect_controller_busy:
      return "it is full, it has no controller left for this host; its log says who has them: end a mount of "
             "it, or wait";
    case connect_needs_authentication:
      return "it demands authentication, which is not supported";
    default:
      break;
  }
  return std::string("it refuses to connect: status ") + number;
}

void NvmeTcpPort::go_live() {
  if (was_live_) {
    ++reconnects_;
    if (log_) log_(LogLevel::info, "connected to " + name_ + " again");
  }
  was_live_ = true;
  live_address_ = address_;
  tries_ = 0;
  step_ = Step::live;
  keep_alive_at_ = clock_.now() + options_.keep_alive / 2;
  arm_live();
}

// --- time ---

void NvmeTcpPort::arm(Clock::TimePoint when) {
  timer_at_ = when;
  timer_->arm(when - clock_.now(), [this] { on_timer(); });
}

void NvmeTcpPort::arm_live() {
  arm(std::min(keep_alive_at_, queue_->next_deadline()));
}

void NvmeTcpPort::on_timer() {
  const auto now = clock_.now();
  const auto queue = queue_;
  if (step_ == Step::down) {
    try_again();
  } else if (step_ == Step::lookup) {
    attempt();
  } else if (step_ == Step::live) {
    if (now >= queue->next_deadline()) {
      queue->fail(ETIMEDOUT, "a command was not answered in time");
    } else {
      if (now >= keep_alive_at_) {
        keep_alive_at_ = now + options_.keep_alive / 2;
        if (!own_in_flight_) run_own(Step::live);
      }
      arm_live();
      queue->flush();
    }
  } else if (now >= attempt_ends_) {
    queue->fail(ETIMEDOUT, "no answer within " + std::to_string(options_.attempt.count()) + " ms");
  } else {
    run_own(Step::ready);
    arm(attempt_ends_);
    queue->flush();
  }
  deliver();
}

// --- commands of clients ---

// Gives the controller what waits and it has room for.
void NvmeTcpPort::pump() {
  const auto queue = queue_;
  bool any = false;
  while (!waiting_.empty() && (step_ != Step::live || in_flight_ < max_in_flight)) {
    Command& command = waiting_.pop();
    if (step_ != Step::live) {
      command.completion = {.status = status::host_path_error};
      completed_.push(command);
    } else if (!NvmeTcpQueue::carries(command)) {
      command.completion = {.error = ENOTSUP};
      completed_.push(command);
    } else {
      queue->submit(command);
      ++in_flight_;
      any = true;
      const auto deadline = clock_.now() + command.timeout;
      if (deadline < timer_at_) arm(deadline);
    }
  }
  if (any) queue->flush();
}

void NvmeTcpPort::on_completed(Command& command) {
  if (&command != &own_) --in_flight_;
  completed_.push(command);
}

void NvmeTcpPort::deliver() {
  completed_.deliver([this] {
    if (client_ != nullptr) client_->on_batch_end();
    pump();
  });
}

}  // namespace

Result<std::unique_ptr<CommandPort>> open_nvme_tcp_port(asio::io_context& loop, const NvmeTcpAddress& target,
                                                        Log log, const NvmeTcpPortOptions& options) {
  auto port = std::make_unique<NvmeTcpPort>(loop, target, std::move(log), options);
  if (const auto prepared = port->prepare(); !prepared) return prepared.error();
  auto addresses = addresses_of(target);
  if (!addresses) return addresses.error();
  if (const auto opened = port->open(std::move(*addresses)); !opened) return opened.error();
  return std::unique_ptr<CommandPort>(std::move(port));
}

}  // namespace nvsock
