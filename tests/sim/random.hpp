// All chance of a run comes from its seed.
#pragma once

#include "csd/random.hpp"

namespace nvsock::sim {

using csd::mix;
using csd::Random;

}  // namespace nvsock::sim
