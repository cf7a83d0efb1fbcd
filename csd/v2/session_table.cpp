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

// Section 2: NDT and NDM. A length that the transport tells is the same.
bool lengths_fit(const Command& command) {
  return command.cdw11 == 0 && relay_v2::told_length(command) == command.data_length &&
         command.data_length <= relay_v2::max_batch && (command.data_length == 0 || command.data != nullptr);
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

void SessionTable::execute(Command& command, const HostName& host) {
  if (command.nsid != 0 || !lengths_fit(command)) return complete(command, status::vendor_errno(EINVAL));
  switch (relay_v2::function_of(command)) {
    case relay_v2::function::capabilities:
      return capabilities(command);
    case relay_v2::function::attach:
      return attach(command, host);
    case relay_v2::function::detach:
      return detach(command, host);
    case relay_v2::function::tx:
      return tx(command, host);
    case relay_v2::function::rx:
      return rx(command, host);
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
  if (command.data_length < relay_v2::capability_page_size)
    return complete(command, status::vendor_errno(EINVAL));
  encode(capabilities_of(options_), {static_cast<uint8_t*>(command.data), relay_v2::capability_page_size});
  complete(command, status::success, static_cast<uint32_t>(relay_v2::capability_bytes));
}

void SessionTable::attach(Command& command, const HostName& host) {
  const auto request =
      relay_v2::parse_session_request({static_cast<const uint8_t*>(command.data), command.data_length});
  if (!request) return complete(command, status::vendor_errno(EINVAL));
  if (request->version != relay_v2::version) return complete(command, status::vendor_errno(EPROTONOSUPPORT));
  if (request->epoch != options_.epoch) return complete(command, status::vendor_errno(ESTALE));
  if (Session* const known = find(host, request->key.handle)) {
    if (!known->proves(request->key.secret)) return complete(command, status::vendor_errno(ESTALE));
    known->touch();
    return complete(command, status::success);
  }
  if (request->resume || ended_.contains(host, request->key.handle))
    return complete(command, status::vendor_errno(ESTALE));
  // What ended sessions have left to deliver counts as sessions once those are as many as there may be.
  if ((options_.may_attach && !options_.may_attach(host)) || sessions_.size() >= options_.max_sessions ||
      lingering_.left() >= options_.max_sessions) {
    return complete(command, status::vendor_errno(ENOMEM));
  }
  const Session::Surroundings around{clock_, services_, completions_, lingering_, large_, small_, options_};
  sessions_.push_back(
      std::make_unique<Session>(around, Session::Identity{.host = host,
                                                          .key = request->key,
                                                          .features = request->features & options_.features,
                                                          .client = Client{++sessions_made_}}));
  arm_lease();
  complete(command, status::success);
}

void SessionTable::detach(Command& command, const HostName& host) {
  if (Session* const session = find(host, relay_v2::parse_call(command).handle)) {
    session->end(Session::End::orderly);
    erase(*session);
  }
  complete(command, status::success);  // detaching twice succeeds
}

Session* SessionTable::find(const HostName& host, uint64_t handle) const {
  const auto found =
      std::ranges::find_if(sessions_, [&](const auto& held) { return held->is(host, handle); });
  return found == sessions_.end() ? nullptr : found->get();
}

void SessionTable::for_each_host(const std::function<void(const HostName&)>& visit) const {
  for (const auto& session : sessions_) visit(session->host());
}

void SessionTable::erase(Session& session) {
  ended_.add(session.host(), session.handle());
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

void SessionTable::tx(Command& command, const HostName& host) {
  const relay_v2::Call call = relay_v2::parse_call(command);
  Session* const session = find(host, call.handle);
  if (session == nullptr) return complete(command, status::vendor_errno(ESTALE));
  if (session->tx(command, call)) return;
  // Nobody knows what the host meant by its bytes: no service shall take them for all there was.
  session->end(Session::End::abort);
  erase(*session);
}

void SessionTable::rx(Command& command, const HostName& host) {
  const relay_v2::Call call = relay_v2::parse_call(command);
  Session* const session = find(host, call.handle);
  if (session == nullptr) return complete(command, status::vendor_errno(ESTALE));
  session->rx(command, call);
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
