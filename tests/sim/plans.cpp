#include "tests/sim/plans.hpp"

#include <algorithm>
#include <cerrno>

namespace nvsock::sim {

using namespace std::chrono_literals;

Plan choose_plan(Random& random, uint64_t most) {
  using End = Plan::End;
  Plan plan;
  plan.to_send = random.any_size(most);
  plan.write_size = random.any_size(128 * 1024) + 1;
  plan.read_size = random.any_size(128 * 1024) + 1;
  plan.write_pause = Clock::Duration(random.any_size(10'000'000));
  plan.read_pause = Clock::Duration(random.any_size(10'000'000));
  plan.long_pauses = random.chance(300) ? 2 : 0;
  const End ends[] = {End::both, End::both, End::both, End::after_writing, End::any_time, End::unread};
  plan.end = random.one_of(ends);
  plan.patience = up_to(random, random.chance(500) ? Clock::Duration(20ms) : Clock::Duration(10s));
  // Many steps of a few bytes show nothing new.
  plan.write_size = std::max<size_t>(plan.write_size, plan.to_send / 400);
  plan.read_size = std::max<size_t>(plan.read_size, most / 400);
  return plan;
}

Script choose_script(Random& random, const Plan& plan, uint64_t most) {
  Script script;
  script.from_host = Pattern(random.next());
  script.from_service = Pattern(random.next());
  script.connect_delay = up_to(random, random.chance(800) ? Clock::Duration(2ms) : Clock::Duration(4s));
  if (random.chance(60)) {
    const int errors[] = {ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT};
    script.connect_error = random.one_of(errors);
  }
  script.answers = !random.chance(20);
  script.echoes = plan.end != Plan::End::unread && random.chance(400);
  script.source_bytes = random.any_size(most);
  script.ends_first = random.chance(400);
  if (random.chance(100)) script.reset_after = random.any_size(most);
  script.in_capacity = random.any_size(64 * 1024) + 1;
  script.out_capacity = random.any_size(64 * 1024) + 1;
  script.read_size = random.any_size(64 * 1024) + 1;
  const size_t least = most / 400 + 1;
  script.in_capacity = std::max(script.in_capacity, least);
  script.out_capacity = std::max(script.out_capacity, least);
  script.read_size = std::max(script.read_size, least);
  script.tick = Clock::Duration(random.any_size(2'000'000));
  if (random.chance(200)) {
    script.pause_every = most / 5 + 1;
    script.pause = up_to(random, 2s);
  }
  return script;
}

}  // namespace nvsock::sim
