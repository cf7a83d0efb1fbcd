// Results for people and for machines.
#pragma once

#include <string>

#include "bench/many.hpp"
#include "bench/measure.hpp"

namespace bench {

// Aligned plain text: a row for each figure, a column for each transport. Beside a figure stands its ratio to
// the first column: how many times as long, or the share of the throughput.
std::string table_of(const Results& results);

// {"setting": …, "complete": …, "figures": [{"name": …, "unit": …, "transports": {NAME: {"median": …,
// "samples": […]}}}], …}. The setting is a sentence about what was measured where. Read by tools/bench-plots.
std::string json_of(const Results& results, const Plan& plan, const std::string& device,
                    const std::string& setting);

// The same for many streams: a row for each figure, a column for each way.
std::string table_of(const std::vector<ManyRow>& ways);
// {"streams": {WAY: {KEY: …, …}, …}}
std::string json_of(const std::vector<ManyRow>& ways);

}  // namespace bench
