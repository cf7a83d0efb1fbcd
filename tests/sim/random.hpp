// All chance of a run comes from its seed.
#pragma once

#include "libnvsock/base/random.hpp"

namespace nvsock::sim {

using nvsock::mix;
using nvsock::Random;

}  // namespace nvsock::sim
