// One measurement: a client, alone in its process, over one connection.
//
// The work is the same for every transport; only the connecting differs, and the pair of calls: read() and
// write() for a file, send() and recv() for a socket, as an ordinary client uses them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "bench/blocks.hpp"
#include "bench/process.hpp"

namespace bench {

struct ClientOrder {
  Work work = Work::echo;
  uint32_t bytes = 0;  // of one operation, at most max_block
  std::chrono::milliseconds duration{};
  std::string target;  // "/…": a file to open; else a port of 127.0.0.1 to connect to
  std::string mount;   // not empty: the connected socket must have become a file below it
};

// Connects, works for the duration, verifies what came back, and returns
//   echo          median and 99th percentile of a round trip, microseconds
//   sink, source  throughput as this client sees it, 10^6 bytes a second
// Blocks without a bound of its own: whoever runs the client process ends it.
Result<std::vector<double>> run_client(const ClientOrder& order);

}  // namespace bench
