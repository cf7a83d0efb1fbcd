// All chance of a run comes from its seed.
#pragma once

#include "libnvsock/base/random.hpp"

namespace nvsock::sim {

using csd::mix;
using csd::Random;

}  // namespace nvsock::sim
