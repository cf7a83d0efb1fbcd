// Deterministic simulation of the second generation, host and drive, with virtual time and faults.
//
//   nvsock-sim --seeds 0-9999
//   nvsock-sim --seed N [--verbose]
//
// Prints one line for each violation, with its seed. Ends with 0 if there was none.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "libnvsock/number.hpp"
#include "tests/sim/world.hpp"

namespace {

bool parse_range(std::string_view text, uint64_t& first, uint64_t& last) {
  const size_t dash = text.find('-');
  return dash != std::string_view::npos && nvsock::parse_number(text.substr(0, dash), first) &&
         nvsock::parse_number(text.substr(dash + 1), last) && first <= last;
}

int usage() {
  std::fputs("nvsock-sim: give --seeds FIRST-LAST, or --seed N [--verbose]\n", stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t first = 0, last = 0;
  bool chosen = false, told = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    const std::string_view value = i + 1 < argc ? argv[i + 1] : "";
    if (option == "--verbose") {
      told = true;
    } else if (option == "--seed" && nvsock::parse_number(value, first)) {
      last = first;
      chosen = true;
      ++i;
    } else if (option == "--seeds" && parse_range(value, first, last)) {
      chosen = true;
      ++i;
    } else {
      return usage();
    }
  }
  if (!chosen) return usage();

  const auto start = std::chrono::steady_clock::now();
  uint64_t failed = 0, commands = 0, bytes = 0, streams = 0, faults = 0;
  for (uint64_t seed = first;; ++seed) {
    const nvsock::sim::Outcome outcome = nvsock::sim::run(seed, told);
    for (const std::string& text : outcome.violations) {
      std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), text.c_str());
    }
    if (!outcome.violations.empty()) std::fflush(stdout);
    failed += !outcome.violations.empty();
    commands += outcome.commands;
    bytes += outcome.bytes;
    streams += outcome.streams;
    faults += outcome.hard_faults;
    if (seed == last) break;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%llu seeds, %llu failed; %llu streams, %llu commands, %.1f MB, %llu hard faults; %.1f s\n",
              static_cast<unsigned long long>(last - first + 1), static_cast<unsigned long long>(failed),
              static_cast<unsigned long long>(streams), static_cast<unsigned long long>(commands),
              static_cast<double>(bytes) / 1e6, static_cast<unsigned long long>(faults), seconds);
  return failed == 0 ? 0 : 1;
}
