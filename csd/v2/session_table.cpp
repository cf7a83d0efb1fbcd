#include "csd/v2/session_table.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "csd/v2/session.hpp"

namespace nvsock::csd {
namespace {

// Free blocks kept for reuse: the batches of one busy session.
constexpr size_t large_kept = 16;
constexpr size_t small_kept = 32;

struct Kind {
  uint8_t opcode;
  uint32_t function;
};
constexpr Kind kinds[] = {{relay_v2::opcode::to_drive, relay_v2::function::attach},
                          {relay_v2::opcode::no_data, relay_v2::function::detach},
                          {relay_v2::opcode::to_drive, relay_v2::function::tx},
                          {relay_v2::opcode::to_host, relay_v2::function::rx}};

bool asks_capabilities(const Command& command) {
  return command.opcode == relay_v2::opcode::to_host && command.cdw10 == relay_v2::function::capabilities &&
         command.cdw11 == relay_v2::capabilities_cdw11;
}

// Section 2: CDW12 is the length of the buffer. What came with the command may be longer, never shorter.
bool buffer_fits(const Command& command) {
  return command.cdw12 <= command.data_length && command.cdw12 <= relay_v2::max_batch &&
         command.cdw12 % 4 == 0 && (command.cdw12 == 0 || command.data != nullptr);
}

}  // namespace

relay_v2::Capabilities capabilities_of(const SessionTableOptions& options) {
  relay_v2::Capabilities told;
  told.features = options.features;
  told.max_streams = options.max_streams;
  told.max_batch = options.max_batch;
  told.max_wait_ms = static_cast<uint32_t>(options.max_wait.count());
  told.tx_window = options.tx_window;
  told.rx_window = options.rx_window;
  told.lease_s = static_cast<uint32_t>(options.lease.count());
  told.epoch = options.epoch;
  told.vendor = options.vendor;
  return told;
}

SessionTable::SessionTable(Clock& clock, ServiceFactory& services, CompletionQueue& completions,
                           SessionTableOptions options)
    : clock_(clock),
      services_(services),
      completions_(completions),
      options_(std::move(options)),
      large_(options_.max_batch, large_kept),
      small_(page_size, small_kept),
      lingering_(clock, options_.linger),
      lease_timer_(clock.make_timer()) {}

SessionTable::~SessionTable() = default;

bool SessionTable::handles(const Command& command) const {
  return asks_capabilities(command) || std::ranges::any_of(kinds, [&](const Kind& kind) {
           return kind.opcode == command.opcode && kind.function == command.cdw10;
         });
}

void SessionTable::execute(Command& command) {
  if (command.nsid != 0 || !buffer_fits(command)) return complete(command, status::vendor_errno(EINVAL));
  switch (command.cdw10) {
    case relay_v2::function::capabilities:
      return capabilities(command);
    case relay_v2::function::attach:
      return attach(command);
    case relay_v2::function::detach:
      return detach(command);
    case relay_v2::function::tx:
      return tx(command);
    case relay_v2::function::rx:
      return rx(command);
    default:
      return complete(command, status::invalid_field);
  }
}

void SessionTable::controller_reset() {
  forget_commands([](const Command&) { return true; });
}

void SessionTable::forget_commands(const std::function<bool(const Command&)>& whose) {
  for (const auto& session : sessions_) session->forget_commands(whose);
}

void SessionTable::complete(Command& command, uint16_t status, uint32_t dw0) {
  command.completion = {.error = 0, .status = status, .dw0 = dw0};
  completions_.post(command);
}

// --- section 3 ---

void SessionTable::capabilities(Command& command) {
  if (command.cdw12 < relay_v2::capability_page_size) return complete(command, status::vendor_errno(EINVAL));
  encode(capabilities_of(options_), {static_cast<uint8_t*>(command.data), relay_v2::capability_page_size});
  complete(command, status::success, static_cast<uint32_t>(relay_v2::capability_bytes));
}

void SessionTable::attach(Command& command) {
  const auto request =
      relay_v2::parse_session_request({static_cast<const uint8_t*>(command.data),
                                       std::min<size_t>(command.cdw12, relay_v2::session_request_size)});
  if (!request) return complete(command, status::vendor_errno(EINVAL));
  if (request->version != relay_v2::version) return complete(command, status::vendor_errno(EPROTONOSUPPORT));
  if (request->epoch != options_.epoch) return complete(command, status::vendor_errno(ESTALE));
  const auto known =
      std::ranges::find_if(sessions_, [&](const auto& held) { return held->id() == request->id; });
  if (known != sessions_.end()) {
    (*known)->touch();
    return complete(command, status::success, (*known)->handle());
  }
  const bool ended = std::ranges::find(ended_, request->id) != ended_.end();
  if (request->resume || ended) return complete(command, status::vendor_errno(ESTALE));
  // A handle is used once in an epoch.
  // What ended sessions have left to deliver counts as sessions once those are as many as there may be.
  if (sessions_.size() >= options_.max_sessions || lingering_.left() >= options_.max_sessions ||
      last_handle_ == UINT32_MAX) {
    return complete(command, status::vendor_errno(ENOMEM));
  }
  const Session::Surroundings around{clock_, services_, completions_, lingering_, large_, small_, options_};
  sessions_.push_back(std::make_unique<Session>(around, request->id, ++last_handle_));
  arm_lease();
  complete(command, status::success, last_handle_);
}

void SessionTable::detach(Command& command) {
  if (Session* const session = find(command.cdw11)) {
    session->end(Session::End::orderly);
    erase(*session);
  }
  complete(command, status::success);  // detaching twice succeeds
}

Session* SessionTable::find(uint32_t handle) const {
  const auto found =
      std::ranges::find_if(sessions_, [&](const auto& held) { return held->handle() == handle; });
  return found == sessions_.end() ? nullptr : found->get();
}

uint32_t SessionTable::handle_of(const relay_v2::SessionId& id) const {
  const auto found = std::ranges::find_if(sessions_, [&](const auto& held) { return held->id() == id; });
  return found == sessions_.end() ? 0 : (*found)->handle();
}

void SessionTable::erase(Session& session) {
  if (ended_.size() == ended_remembered) ended_.pop_front();
  ended_.push_back(session.id());
  std::erase_if(sessions_, [&](const auto& held) { return held.get() == &session; });
}

uint64_t SessionTable::datagrams_dropped() const {
  uint64_t dropped = 0;
  for (const auto& session : sessions_) dropped += session->datagrams_dropped();
  return dropped;
}

Delivery SessionTable::delivery() const {
  Delivery delivery = lingering_.delivery();
  for (const auto& session : sessions_) delivery.waiting += session->undelivered();
  return delivery;
}

void SessionTable::end_sessions() {
  while (!sessions_.empty()) {
    sessions_.back()->end(Session::End::abort);
    erase(*sessions_.back());
  }
}

// --- section 5 ---

void SessionTable::tx(Command& command) {
  Session* const session = find(command.cdw11);
  if (session == nullptr) return complete(command, status::vendor_errno(ESTALE));
  if (session->tx(command)) return;
  // Nobody knows what the host meant by its bytes: no service shall take them for all there was.
  session->end(Session::End::abort);
  erase(*session);
}

void SessionTable::rx(Command& command) {
  Session* const session = find(command.cdw11);
  if (session == nullptr) return complete(command, status::vendor_errno(ESTALE));
  session->rx(command);
}

// --- the lease ---

// The timer is not moved with each command: it fires early, looks, and is armed anew.
void SessionTable::arm_lease() {
  if (lease_armed_ || sessions_.empty()) return;
  const auto first = std::ranges::min_element(
      sessions_, {}, [](const std::unique_ptr<Session>& session) { return session->lease_end(); });
  lease_armed_ = true;
  lease_timer_->arm((*first)->lease_end() - clock_.now(), [this] { check_leases(); });
}

void SessionTable::check_leases() {
  lease_armed_ = false;
  const Clock::TimePoint now = clock_.now();
  // The host is gone, not done: services see resets, as they would of a host that crashed.
  for (size_t i = sessions_.size(); i-- > 0;) {
    if (sessions_[i]->lease_end() > now) continue;
    sessions_[i]->end(Session::End::abort);
    erase(*sessions_[i]);
  }
  arm_lease();
}

}  // namespace nvsock::csd
