#include "libnvsock/host/session_v2.hpp"

#include <algorithm>
#include <utility>

#include "libnvsock/socket/program_errno.hpp"

namespace nvsock {
namespace {

using namespace std::chrono_literals;

// Beyond what the drive may take by the protocol; expiry makes Linux reset the controller.
constexpr auto command_margin = 30s;

// A drive may answer a receive with nothing before its wait is over: when a second one takes its place, after
// a reset. One that always does would keep a processor busy for as long as it is mounted.
constexpr unsigned hasty_allowed = 8;
constexpr auto first_rest = 1ms;
constexpr auto longest_rest = 500ms;  // below any lease

constexpr auto first_back_off = 20ms;
constexpr auto last_back_off = 1000ms;

std::string told(const Completion& completion) {
  return completion.error != 0 ? "errno " + std::to_string(completion.error)
                               : "status " + std::to_string(completion.status);
}

}  // namespace

SessionV2::SessionV2(Clock& clock, CommandPort& port, const relay_v2::Capabilities& capabilities,
                     const relay_v2::SessionKey& key, Owner& owner)
    : clock_(clock),
      port_(port),
      capabilities_(capabilities),
      key_(key),
      owner_(owner),
      batches_(capabilities.max_batch, 2 * (max_tx + max_rx)),
      retry_(clock.make_timer()),
      rest_(clock.make_timer()) {
  for (Slot& slot : tx_) slot.command.completed = &SessionV2::on_tx;
  for (Slot& slot : rx_) slot.command.completed = &SessionV2::on_rx;
  for (auto* slots : {tx_.data(), rx_.data()}) {
    for (size_t i = 0; i < max_tx; ++i) slots[i].command.slot = &slots[i];
  }
  control_.completed = &SessionV2::on_control;
  control_page_ = batches_.take();
  static_assert(max_tx == max_rx && relay_v2::min_batch >= relay_v2::capability_page_size);
}

SessionV2::~SessionV2() = default;

// --- commands ---

void SessionV2::submit(SlotCommand& command) {
  command.session = this;
  command.completion = {};
  command.done = [](Command& done) {
    auto& own = static_cast<SlotCommand&>(done);
    --own.session->in_flight_;
    own.session->owner_.on_command(false);
    (own.session->*own.completed)(own);
  };
  ++in_flight_;
  owner_.on_command(true);
  port_.submit(command);
}

void SessionV2::submit_control(const relay_v2::Call& call, uint32_t bytes) {
  control_.data = bytes > 0 ? control_page_.data() : nullptr;
  control_.data_length = bytes;
  encode(call, control_);
  control_.timeout = command_margin;
  control_in_flight_ = true;
  submit(control_);
  port_.ring();
}

// --- the link ---

std::string_view SessionV2::link_name() const {
  switch (link_) {
    case Link::down:
      break;
    case Link::attaching:
      return "attaching";
    case Link::live:
      return hasty_ > hasty_allowed ? "live, but the drive answers at once with nothing" : "live";
    case Link::probing:
      return "probing";
  }
  return "down";
}

void SessionV2::start() {
  heard_ = clock_.now();
  back_off_ = first_back_off;
  attach();
}

void SessionV2::attach() {
  link_ = Link::attaching;
  relay_v2::encode(relay_v2::SessionRequest{.resume = resumable_,
                                            .features = relay_v2::feature::all,
                                            .epoch = capabilities_.epoch,
                                            .key = key_},
                   {control_page_.data(), relay_v2::session_request_size});
  submit_control({.function = relay_v2::function::attach}, relay_v2::session_request_size);
}

bool SessionV2::all_sent() const {
  return std::ranges::all_of(tx_, [](const Slot& slot) { return slot.state == Slot::State::free; });
}

void SessionV2::for_each_unconfirmed(const std::function<void(const Sent&)>& visit) const {
  for (const Slot& slot : tx_) std::ranges::for_each(slot.sent, visit);
}

void SessionV2::detach() {
  detaching_ = true;
  pump();
}

// Not before: commands may pass each other, and a detach that did would take the last bytes with it.
void SessionV2::detach_if_sent() {
  if (!detaching_ || !all_sent() || control_in_flight_) return;
  link_ = Link::down;
  retry_->disarm();
  submit_control({.function = relay_v2::function::detach, .handle = key_.handle}, 0);
}

void SessionV2::on_control(SlotCommand& command) {
  control_in_flight_ = false;
  const uint8_t called = relay_v2::function_of(command);
  if (called == relay_v2::function::attach && link_ == Link::attaching) {
    on_attached(command.completion);
  } else if (called == relay_v2::function::capabilities && link_ == Link::probing) {
    on_capabilities(command.completion);
  }
}

void SessionV2::on_attached(const Completion& completion) {
  if (!completion.ok()) {
    const int code = completion.error == 0 ? status::errno_of(completion.status) : 0;
    // Probes for the new epoch, then makes a new session.
    if (code == ESTALE) return lose(file_errno(Cause::reset), "the drive does not know it");
    if (code == ENOMEM && !std::exchange(doubt_told_, true))
      owner_.on_link_message(
          "the drive is full, it has no session left for this host: end a mount of it, or wait");
    return suspect(completion);
  }
  heard_ = clock_.now();
  if (std::exchange(resumable_, true)) {
    ++resumed_;
    owner_.on_link_message("the session was resumed");
  }
  outage_told_ = false;
  link_ = Link::live;
  owner_.on_session_live();
  pump();
}

// What the drive does wrong is told once, and it is asked ever less often, until something goes right: one
// that attaches and then fails again would be told of many times a second.
void SessionV2::on_progress() {
  back_off_ = first_back_off;
  doubt_told_ = loss_told_ = false;
}

void SessionV2::suspect(const Completion& completion) {
  if (link_ == Link::down || link_ == Link::probing) return;
  // Up to now a receive was with the drive, and its lease begins when it loses that.
  if (link_ == Link::live) heard_ = clock_.now();
  if (!std::exchange(doubt_told_, true))
    owner_.on_link_message("a command's outcome is unknown (" + told(completion) + "): asking the drive");
  link_ = Link::probing;
  probe_later();
}

// The page comes as soon as the controller is live again. Until then every attempt fails at once.
void SessionV2::probe_later() {
  if (!outage_told_ && clock_.now() - heard_ > std::chrono::seconds(capabilities_.lease_s)) {
    // The drive has ended the session by now, or will have when it is heard of again.
    outage_told_ = true;
    lose(file_errno(Cause::timed_out), "the drive does not answer");
    return;
  }
  retry_->arm(back_off_, [this] {
    back_off_ = std::min<Clock::Duration>(back_off_ * 2, last_back_off);
    if (link_ != Link::probing) return;
    if (control_in_flight_) return probe_later();
    submit_control({.function = relay_v2::function::capabilities}, relay_v2::capability_page_size);
  });
}

void SessionV2::on_capabilities(const Completion& completion) {
  if (!completion.ok()) return probe_later();
  const auto page = relay_v2::parse_capabilities({control_page_.data(), relay_v2::capability_page_size});
  if (!page) return probe_later();
  const bool same = page->epoch == capabilities_.epoch;
  // The batch size stays: buffers are made for it. A drive that offers less now is asked for less.
  capabilities_.epoch = page->epoch;
  capabilities_.lease_s = page->lease_s;
  if (!same && resumable_) return lose(file_errno(Cause::reset), "the drive has started anew");
  attach();
}

// The streams end, the numbers start over, and a session of another name is made when the drive answers.
void SessionV2::lose(int error, const char* why) {
  link_ = Link::probing;
  lost_ += std::exchange(resumable_, false);
  next_tx_ = next_rx_ = 1;
  taken_ = 0;
  rx_wanted_ = 1;
  hasty_ = 0;
  if (++key_.handle == 0) key_.handle = 1;
  for (size_t i = key_.secret.size(); i-- > 0 && ++key_.secret[i] == 0;) continue;
  for (Slot& slot : tx_) {
    if (slot.state != Slot::State::in_flight) slot.state = Slot::State::free;
    slot.sequence = 0;  // a late completion means nothing any more
    slot.sent.clear();
    if (slot.state == Slot::State::free) slot.buffer = {};
  }
  for (Slot& slot : rx_) {
    if (slot.state != Slot::State::in_flight) slot.state = Slot::State::free;
    slot.sequence = 0;
  }
  if (!std::exchange(loss_told_, true)) owner_.on_link_message(std::string("the session is lost: ") + why);
  owner_.on_session_lost(error);
  if (link_ == Link::probing) probe_later();
}

bool SessionV2::settled(const Completion& completion) {
  if (completion.ok()) {
    heard_ = clock_.now();
    return true;
  }
  const int code = completion.error == 0 ? status::errno_of(completion.status) : 0;
  if (link_ != Link::live) return false;  // being looked into already
  if (code == ESTALE || code == EPROTO || code == EINVAL) {
    lose(file_errno(Cause::reset),
         code == ESTALE ? "the drive has ended it" : "the drive found fault with a command");
  } else {
    // EAGAIN too: no batch of ours is too early (oldest_unconfirmed), so the drive is not as it said it is.
    suspect(completion);
  }
  return false;
}

// --- host to drive ---

void SessionV2::pump() {
  if (pumping_) return;
  pumping_ = true;
  while (link_ == Link::live) {
    const bool sent = send_waiting();
    const bool fetching = fetch();
    if (!sent && !fetching) {
      detach_if_sent();
      break;
    }
    port_.ring();
  }
  pumping_ = false;
}

// Submits batches to be sent again, in order, and new ones while there are free slots.
bool SessionV2::send_waiting() {
  const size_t limit = std::min<size_t>(max_tx, capabilities_.tx_window);
  auto busy = static_cast<size_t>(
      std::ranges::count_if(tx_, [](const Slot& slot) { return slot.state != Slot::State::free; }));
  for (Slot& slot : tx_) {
    if (slot.state != Slot::State::free || busy >= limit) continue;
    if (next_tx_ - oldest_unconfirmed() >= capabilities_.tx_window) break;
    if (!slot.buffer) slot.buffer = batches_.take();
    relay_v2::BatchWriter writer({slot.buffer.data(), capabilities_.max_batch});
    const uint64_t sequence = next_tx_++;
    owner_.fill(writer, slot.sent);
    if (writer.empty()) {
      --next_tx_;
      break;
    }
    slot.sequence = sequence;
    slot.bytes = writer.finish(sequence, next_rx_ - 1);
    slot.state = Slot::State::waiting;
    ++busy;
  }
  bool any = false;
  while (Slot* slot = oldest_waiting()) {
    submit_tx(*slot);
    any = true;
  }
  return any;
}

// A batch within the window of this one is never too early for the drive (5.1), which has all before it.
uint64_t SessionV2::oldest_unconfirmed() const {
  uint64_t oldest = next_tx_;
  for (const Slot& slot : tx_) {
    if (slot.state != Slot::State::free && slot.sequence != 0) oldest = std::min(oldest, slot.sequence);
  }
  return oldest;
}

SessionV2::Slot* SessionV2::oldest_waiting() {
  Slot* oldest = nullptr;
  for (Slot& slot : tx_) {
    if (slot.state == Slot::State::waiting && (oldest == nullptr || slot.sequence < oldest->sequence))
      oldest = &slot;
  }
  return oldest;
}

void SessionV2::submit_tx(Slot& slot) {
  slot.state = Slot::State::in_flight;
  slot.command.data = slot.buffer.data();
  slot.command.data_length = slot.bytes;
  encode(relay_v2::Call{.function = relay_v2::function::tx,
                        .handle = key_.handle,
                        .sequence = static_cast<uint32_t>(slot.sequence)},
         slot.command);
  slot.command.timeout = command_margin;
  submit(slot.command);
}

void SessionV2::on_tx(SlotCommand& command) {
  Slot& slot = *command.slot;
  if (slot.sequence == 0) {  // of a session that was lost
    slot.state = Slot::State::free;
    slot.buffer = {};
    return;
  }
  slot.state = Slot::State::waiting;
  if (!settled(command.completion)) return;
  slot.state = Slot::State::free;
  on_progress();
  for (const Sent& sent : slot.sent) owner_.on_sent(sent);
  slot.sent.clear();
}

// --- drive to host ---

// Short enough that a quiet session hears from the drive several times within its lease.
uint32_t SessionV2::wait_ms() const {
  const uint64_t third_of_lease = uint64_t{std::max(capabilities_.lease_s, 1u)} * 1000 / 3;
  return static_cast<uint32_t>(std::min<uint64_t>(capabilities_.max_wait_ms, third_of_lease));
}

// Keeps rx_wanted_ receives in flight, for the oldest sequences the host does not have.
bool SessionV2::fetch() {
  if (resting_) return false;
  const size_t limit = std::min<size_t>(rx_wanted_, std::min<size_t>(max_rx, capabilities_.rx_window));
  bool any = false;
  for (uint64_t sequence = next_rx_; sequence < next_rx_ + limit; ++sequence) {
    const auto asked = std::ranges::find_if(
        rx_, [&](const Slot& slot) { return slot.state != Slot::State::free && slot.sequence == sequence; });
    if (asked != rx_.end() && asked->state != Slot::State::waiting) continue;
    const auto slot = asked != rx_.end() ? asked : std::ranges::find_if(rx_, [](const Slot& free) {
      return free.state == Slot::State::free;
    });
    if (slot == rx_.end()) break;
    if (!slot->buffer || !slot->buffer.unique()) slot->buffer = batches_.take();
    slot->state = Slot::State::in_flight;
    slot->sequence = sequence;
    slot->asked = clock_.now();
    slot->command.data = slot->buffer.data();
    slot->command.block = &slot->buffer;
    slot->command.data_length = capabilities_.max_batch;
    encode(relay_v2::Call{.function = relay_v2::function::rx,
                          .handle = key_.handle,
                          .sequence = static_cast<uint32_t>(sequence),
                          .wait_ms = wait_ms(),
                          .distance = static_cast<uint32_t>(sequence - next_rx_)},
           slot->command);
    slot->command.timeout = std::chrono::milliseconds(capabilities_.max_wait_ms) + command_margin;
    slot->command.may_block = true;
    submit(slot->command);
    any = true;
  }
  return any;
}

void SessionV2::on_rx(SlotCommand& command) {
  Slot& slot = *command.slot;
  if (slot.sequence == 0) {  // of a session that was lost
    slot.state = Slot::State::free;
    return;
  }
  slot.state = Slot::State::waiting;
  if (!settled(command.completion)) return;
  slot.bytes = command.completion.dw0;
  if (slot.bytes == 0) return on_empty(slot);
  hasty_ = 0;
  slot.state = Slot::State::arrived;
  deliver_arrived();
}

// The wait is over: the keep-alive.
void SessionV2::on_empty(Slot& slot) {
  on_progress();
  slot.state = Slot::State::free;
  rx_wanted_ = 1;
  if (clock_.now() - slot.asked >= std::chrono::milliseconds(wait_ms()) / 2) {
    hasty_ = 0;
    return;
  }
  if (++hasty_ <= hasty_allowed) return;
  if (hasty_ == hasty_allowed + 1) {
    owner_.on_link_message(
        "the drive answers at once with nothing, whatever wait it is given: asking less often");
  }
  resting_ = true;
  const unsigned doublings = std::min(hasty_ - hasty_allowed - 1, 9u);
  rest_->arm(std::min<Clock::Duration>(first_rest * (1u << doublings), longest_rest), [this] {
    resting_ = false;
    pump();
  });
}

void SessionV2::deliver_arrived() {
  for (;;) {
    const auto slot = std::ranges::find_if(rx_, [&](const Slot& arrived) {
      return arrived.state == Slot::State::arrived && arrived.sequence == next_rx_;
    });
    if (slot == rx_.end()) return;
    if (!deliver(*slot)) return;
  }
}

bool SessionV2::deliver(Slot& slot) {
  slot.state = Slot::State::free;
  ++next_rx_;
  if (slot.bytes >= capabilities_.max_batch / 2) rx_wanted_ = max_rx;
  std::optional<relay_v2::Batch> batch;
  if (slot.bytes <= capabilities_.max_batch) {
    batch =
        relay_v2::Batch::parse({slot.buffer.data(), slot.bytes}, slot.sequence, relay_v2::Batch::From::drive);
  }
  // Nothing is taken that was not sent, nor given back.
  const uint64_t taken = batch ? relay_v2::nearest_sequence(batch->taken(), batches_sent()) : 0;
  bool good = batch && taken >= taken_ && taken <= batches_sent();
  if (good && taken > taken_) owner_.on_taken(taken_ = taken);
  while (good) {
    const std::optional<relay_v2::Frame> frame = batch->next();
    if (!frame) break;
    good = owner_.on_frame(*frame, slot.buffer);
  }
  if (!good) {
    if (!control_in_flight_) {
      submit_control({.function = relay_v2::function::detach, .handle = key_.handle}, 0);
    }
    lose(file_errno(Cause::protocol_broken), "the drive sent a batch that breaks the protocol");
  }
  if (good) on_progress();
  return good;
}

}  // namespace nvsock
