// Deterministic simulation with virtual time and faults: of the second generation, host and drive, or of the
// first one's host with a model of the firmware in the field.
//
//   nvsock-sim [--dialect v1|v2] --seeds 0-9999
//   nvsock-sim [--dialect v1|v2] --seed N [--verbose]
//
// Prints one line for each violation, with its seed, and after 20 seeds that failed looks no further. Ends
// with 0 if there was no violation. A run is bounded in virtual time and events (world.cpp, world_v1.cpp);
// one that crashes, or never comes back from an event, ends the program by a signal, with its seed told.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "libnvsock/base/number.hpp"
#include "tests/sim/world.hpp"

namespace {

constexpr uint64_t most_failed = 20;
// Of real time: a million events take 0.2 s, with sanitizers on a busy machine 30 s.
constexpr unsigned longest_run_s = 120;

// --- a run that does not return ---

char running[100];  // what is told of it, ready before it starts: in a signal handler nothing can be printed
size_t running_size;

void on_fatal_signal(int number) {
  static_cast<void>(!write(STDOUT_FILENO, running, running_size));
  std::signal(number, SIG_DFL);
  std::raise(number);
}

void watch_for_fatal_signals() {
  for (const int number : {SIGALRM, SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) {
    // A sanitizer's own handler stays: its report says more.
    if (const auto before = std::signal(number, on_fatal_signal); before != SIG_DFL)
      std::signal(number, before);
  }
}

void watch(uint64_t seed) {
  const int size =
      std::snprintf(running, sizeof running, "seed %llu: crashed, or was still not done after %u s (real)\n",
                    static_cast<unsigned long long>(seed), longest_run_s);
  running_size = static_cast<size_t>(size);
  alarm(longest_run_s);
}

// --- options ---

bool parse_range(std::string_view text, uint64_t& first, uint64_t& last) {
  const size_t dash = text.find('-');
  return dash != std::string_view::npos && nvsock::parse_number(text.substr(0, dash), first) &&
         nvsock::parse_number(text.substr(dash + 1), last) && first <= last;
}

int usage() {
  std::fputs("nvsock-sim: give [--dialect v1|v2] and --seeds FIRST-LAST, or --seed N [--verbose]\n", stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t first = 0, last = 0;
  bool chosen = false, told = false;
  auto* run = nvsock::sim::run;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    const std::string_view value = i + 1 < argc ? argv[i + 1] : "";
    if (option == "--verbose") {
      told = true;
    } else if (option == "--dialect" && (value == "v1" || value == "v2")) {
      run = value == "v1" ? nvsock::sim::run_v1 : nvsock::sim::run;
      ++i;
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
  watch_for_fatal_signals();
  if (told) std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // up to the line before a crash
  uint64_t failed = 0, commands = 0, bytes = 0, streams = 0, faults = 0;
  uint64_t seed = first;
  for (;; ++seed) {
    watch(seed);
    const nvsock::sim::Outcome outcome = run(seed, told);
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
    if (failed == most_failed) {
      std::printf("%llu seeds have failed: those after %llu are left out\n",
                  static_cast<unsigned long long>(failed), static_cast<unsigned long long>(seed));
      break;
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%llu seeds, %llu failed; %llu streams, %llu commands, %.1f MB, %llu hard faults; %.1f s\n",
              static_cast<unsigned long long>(seed - first + 1), static_cast<unsigned long long>(failed),
              static_cast<unsigned long long>(streams), static_cast<unsigned long long>(commands),
              static_cast<double>(bytes) / 1e6, static_cast<unsigned long long>(faults), seconds);
  return failed == 0 ? 0 : 1;
}
