#include "bench/measure.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <sstream>

namespace bench {
namespace {

using namespace std::chrono_literals;

// Beyond its duration a client connects, drains what is queued, and waits for the server's count.
constexpr auto client_allowance = 10s;

struct Workload {
  const char* name;
  Work work;
  uint32_t bytes;
};

constexpr std::array workloads{
    Workload{"round trip 64 B", Work::echo, 64},      Workload{"write 4 KiB", Work::sink, 4 << 10},
    Workload{"write 128 KiB", Work::sink, 128 << 10}, Workload{"write 1 MiB", Work::sink, 1 << 20},
    Workload{"read 4 KiB", Work::source, 4 << 10},    Workload{"read 128 KiB", Work::source, 128 << 10},
    Workload{"read 1 MiB", Work::source, 1 << 20},
};

// A workload and the one or two figures it yields.
struct Row {
  const Workload& workload;
  std::vector<Figure> figures;
  std::vector<bool> failed;  // of every transport
};

std::vector<Row> make_rows(size_t transports, const std::string& only) {
  const std::vector<std::vector<double>> none(transports);
  std::vector<Row> rows;
  for (const Workload& workload : workloads) {
    const std::string name = workload.name;
    if (name.find(only) == std::string::npos) continue;
    rows.push_back({workload, {}, std::vector<bool>(transports)});
    if (workload.work == Work::echo)
      rows.back().figures = {{name + ", median", Unit::microseconds, none},
                             {name + ", 99 %", Unit::microseconds, none}};
    else
      rows.back().figures = {{name, Unit::megabytes_per_second, none}};
  }
  return rows;
}

Result<std::vector<double>> run_client_process(const Workload& workload, const Transport& transport,
                                               const Plan& plan) {
  Command client{{"/proc/self/exe", "client", std::string(1, static_cast<char>(workload.work)),
                  std::to_string(workload.bytes), std::to_string(plan.duration.count()), transport.target},
                 transport.environment,
                 plan.client_cpu};
  if (!transport.mount.empty()) client.argv.push_back(transport.mount);
  const auto output = output_of(client, Clock::now() + plan.duration + client_allowance);
  if (!output) return output.error();

  std::vector<double> values;
  std::istringstream text(*output);
  for (double value; text >> value;) values.push_back(value);
  return values;
}

// Adds to the results what a process used of the CPU while this object lived.
class CpuMeter {
 public:
  CpuMeter(pid_t pid, Results& results)
      : pid_(pid), results_(results), before_(used()), start_(Clock::now()) {}
  ~CpuMeter() {
    if (pid_ == 0) return;
    results_.measured += std::chrono::round<std::chrono::milliseconds>(Clock::now() - start_);
    results_.cpu_in_between += used() - before_;
  }

 private:
  std::chrono::milliseconds used() const {
    const auto time = pid_ == 0 ? 0ms : cpu_time(pid_);
    return time ? *time : 0ms;
  }

  pid_t pid_;
  Results& results_;
  std::chrono::milliseconds before_;
  Clock::time_point start_;
};

// One cell of the table, once.
Done measure_cell(Row& row, size_t column, const Transport& transport, const Plan& plan, Results& results) {
  const CpuMeter meter(transport.through, results);
  auto values = run_client_process(row.workload, transport, plan);
  if (values && values->size() != row.figures.size())
    values = Error{EPROTO, "the client's answer is malformed"};
  if (!values) {
    if (values.error().code == EINTR) return values.error();
    std::fprintf(stderr, "nvsock-bench: %s, %s: %s\n", row.workload.name, transport.name.c_str(),
                 values.error().text.c_str());
    row.failed[column] = true;
    results.complete = false;
    return std::monostate{};
  }
  for (size_t i = 0; i < values->size(); ++i) row.figures[i].samples[column].push_back((*values)[i]);
  return std::monostate{};
}

}  // namespace

Result<Results> measure(const std::vector<Transport>& transports, const Plan& plan) {
  Results results;
  for (const Transport& transport : transports) results.transports.push_back(transport.name);
  std::vector<Row> rows = make_rows(transports.size(), plan.only);
  if (rows.empty()) return Error{EINVAL, "no measurement has \"" + plan.only + "\" in its name"};

  for (int round = 1; round <= plan.rounds; ++round) {
    if (isatty(STDERR_FILENO) != 0) std::fprintf(stderr, "round %d of %d\n", round, plan.rounds);
    for (Row& row : rows)
      for (size_t column = 0; column < transports.size(); ++column) {
        if (row.failed[column]) continue;
        const auto done = measure_cell(row, column, transports[column], plan, results);
        if (!done) return done.error();
      }
  }
  for (Row& row : rows)
    for (Figure& figure : row.figures) results.figures.push_back(std::move(figure));
  return results;
}

double median(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const size_t middle = samples.size() / 2;
  return samples.size() % 2 == 1 ? samples[middle] : (samples[middle - 1] + samples[middle]) / 2;
}

}  // namespace bench
