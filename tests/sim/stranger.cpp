#include "tests/sim/stranger.hpp"

#include <cerrno>

#include "tests/sim/plans.hpp"

namespace nvsock::sim {

using namespace std::chrono_literals;

Stranger::Stranger(const Site& site, Random random, const std::vector<std::unique_ptr<SimHost>>& hosts)
    : site_(site), random_(random), hosts_(hosts) {
  act_later();
}

Stranger::~Stranger() {
  site_.drive.forget(*this);
  site_.drive.forget(impostor_);
}

void Stranger::act_later() {
  site_.clock.after(up_to(random_, 200ms), alive_, [this] {
    if (site_.clock.now().time_since_epoch() >= faults_end) return;
    act();
    act_later();
  });
}

void Stranger::act() {
  const SimHost& victim = *hosts_[random_.below(hosts_.size())];
  const uint64_t handle = random_.chance(700) ? victim.handle() : random_.chance(500) ? 1 : random_.next();
  switch (random_.below(6)) {
    case 0:
      return attach(handle, random_.chance(800), *this);
    case 1:
      impostor_.as = &victim.name();
      return attach(handle, true, impostor_);
    case 2:
    case 3:
      return tx(handle);
    case 4:
      return rx(handle);
    default:
      return submit(make({.function = relay_v2::function::detach, .handle = handle}, 0), *this);
  }
}

void Stranger::attach(uint64_t handle, bool resume, Guest& as) {
  relay_v2::SessionRequest request{.resume = resume,
                                   .features = relay_v2::feature::all,
                                   .epoch = site_.drive.epoch(),
                                   .key = {.handle = handle == 0 ? 1 : handle}};
  for (uint8_t& byte : request.key.secret) byte = static_cast<uint8_t>(random_.next());
  Sent& command = make({.function = relay_v2::function::attach}, relay_v2::session_request_size);
  encode(request, command.bytes);
  submit(command, as);
}

// What ends the streams that the victim may have, with a sequence that it may be about to use.
void Stranger::tx(uint64_t handle) {
  const auto sequence = static_cast<uint32_t>(random_.between(1, random_.chance(500) ? 10 : 1000));
  Sent& command = make({.function = relay_v2::function::tx, .handle = handle, .sequence = sequence}, 4096);
  relay_v2::BatchWriter batch(command.bytes);
  for (uint32_t stream = 1; stream < 10; ++stream)
    batch.append(relay_v2::FrameType::reset, stream, ECONNRESET, 0);
  command.bytes.resize(batch.finish(sequence, 0));
  command.data_length = static_cast<uint32_t>(command.bytes.size());
  command.cdw10 = command.data_length / 4;
  submit(command, *this);
}

void Stranger::rx(uint64_t handle) {
  const auto sequence = static_cast<uint32_t>(random_.between(1, random_.chance(500) ? 10 : 1000));
  submit(make({.function = relay_v2::function::rx,
               .handle = handle,
               .sequence = sequence,
               .wait_ms = static_cast<uint32_t>(random_.below(100))},
              relay_v2::max_batch),
         *this);
}

Stranger::Sent& Stranger::make(const relay_v2::Call& call, size_t size) {
  auto command = std::make_unique<Sent>();
  command->owner = this;
  command->bytes.resize(size);
  command->data_length = static_cast<uint32_t>(size);
  command->data = size > 0 ? command->bytes.data() : nullptr;
  command->done = [](Command& done) { static_cast<Sent&>(done).owner->sent_.erase(&done); };
  encode(call, *command);
  Sent& made = *command;
  sent_.emplace(&made, std::move(command));
  return made;
}

void Stranger::submit(Sent& command, Guest& as) {
  site_.drive.submit(command, as);
  site_.drive.flush();
}

void Stranger::posted(Command& command) {
  const relay_v2::Call call = relay_v2::parse_call(command);
  const int error = status::errno_of(command.completion.status);
  if (call.function == relay_v2::function::attach) {
    const auto request = relay_v2::parse_session_request(static_cast<const Sent&>(command).bytes);
    if (command.completion.ok() && request) own_.insert(request->key.handle);
  } else if (call.function != relay_v2::function::detach && error != ESTALE && !own_.contains(call.handle)) {
    site_.story.violation("a stranger reached session %llx", static_cast<unsigned long long>(call.handle));
  }
}

void Stranger::posted_as_impostor(const Command& command) {
  if (command.completion.ok()) site_.story.violation("a session was resumed without its secret");
}

}  // namespace nvsock::sim
