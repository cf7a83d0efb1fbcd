// The plan of a run: which figures, through which transports, in which order.
//
// Rounds are interleaved: a round measures the first workload through every transport in turn, then the
// next workload. Noise of a shared machine then hits all transports alike, and a median over rounds drops it.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "bench/client.hpp"
#include "bench/process.hpp"

namespace bench {

// A way from the client to the server.
struct Transport {
  std::string name;                                              // of its column
  std::string target;                                            // ClientOrder::target
  std::string mount;                                             // ClientOrder::mount
  std::vector<std::pair<std::string, std::string>> environment;  // of the client process
  pid_t through = 0;  // the process in between whose CPU time is summed, if any
};

enum class Unit { microseconds, megabytes_per_second };

// One row: the samples of every transport, in the order of Results::transports. A transport that failed has
// fewer samples than there were rounds, perhaps none.
struct Figure {
  std::string name;
  Unit unit;
  std::vector<std::vector<double>> samples;
};

struct Results {
  std::vector<std::string> transports;
  std::vector<Figure> figures;
  bool complete = true;                        // false: some measurement failed, and said so on stderr
  std::chrono::milliseconds measured{};        // time in measurements that had a process in between
  std::chrono::milliseconds cpu_in_between{};  // what that process used meanwhile
};

struct Plan {
  int rounds = 5;
  std::chrono::milliseconds duration{300};  // of one measurement
  int client_cpu = any_cpu;
  std::string only;  // measure just the workloads whose name contains this
};

// Runs the whole plan, a client process for each measurement. One that fails is told on stderr and not tried
// again. EINTR: a signal asked to end. EINVAL: `only` names nothing.
Result<Results> measure(const std::vector<Transport>& transports, const Plan& plan);

// Of at least one sample; the mean of the middle two for an even number.
double median(std::vector<double> samples);

}  // namespace bench
