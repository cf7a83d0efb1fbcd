// What the programs and the services of a run do, by chance.
#pragma once

#include "tests/sim/client.hpp"
#include "tests/sim/random.hpp"
#include "tests/sim/services.hpp"

namespace nvsock::sim {

inline Clock::Duration up_to(Random& random, Clock::Duration most) {
  return Clock::Duration(random.below(static_cast<uint64_t>(most.count()) + 1));
}

// `most`: bytes of a direction.
Plan choose_plan(Random& random, uint64_t most);
// Of the service that the program with this plan connects to.
Script choose_script(Random& random, const Plan& plan, uint64_t most);

}  // namespace nvsock::sim
