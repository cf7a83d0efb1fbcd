// One run: a host or two with some streams, a drive with their services, the ways between them, and faults
// for a while; often also a stranger who wants what is theirs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nvsock::sim {

struct Outcome {
  std::vector<std::string> violations;
  uint64_t commands = 0;
  uint64_t bytes = 0;  // that services and clients got
  unsigned streams = 0;
  unsigned hard_faults = 0;
};

// Everything in it follows from the seed. `told`: prints the story.
Outcome run(uint64_t seed, bool told);     // the second generation, both ends
Outcome run_v1(uint64_t seed, bool told);  // the first one's host

}  // namespace nvsock::sim
