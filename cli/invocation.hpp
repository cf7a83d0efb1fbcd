// One run of nvsock: what every subcommand shares, and how each tells what became of it.
//
// A subcommand is a file with a function add_NAME(), which describes its arguments to CLI11 and says what to
// do when it is the one. What it returns decides the exit status (exit_status()); its sentence goes to
// standard error. Threads: the main thread.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "libnvsock/base/result.hpp"

namespace nvsock::cli {

struct Invocation {
  std::string mount;   // of csdfs; empty: the only one there is
  bool quiet = false;  // print nothing but what was asked for
  bool verbose = false;
  double timeout = -1;  // seconds; 0: none; less: what the subcommand thinks right
  std::function<Result<void>()> action{};
};

// Exit statuses, part of the interface: docs/nvsock.1.
enum Exit : int { done = 0, failed = 1, usage = 2, no_drive = 3, cannot = 4, refused = 5, timed_out = 6 };
Exit exit_status(const Error& error);

// From now on the program ends with a sentence and Exit::timed_out after so long, whatever it waits for: a
// daemon that is stopped, or a drive. 0: no more, and no thread but the caller's is left.
void limit_time(double seconds);
// The same for what csdfs answers at once: --timeout, or 10 seconds.
void limit_answer(const Invocation& run);

void add_connect(CLI::App& app, Invocation& run);
void add_forward(CLI::App& app, Invocation& run);  // forward, publish
void add_list(CLI::App& app, Invocation& run);
void add_programs(CLI::App& app, Invocation& run);  // mount, umount, emulate
void add_relay(CLI::App& app, Invocation& run);
void add_state(CLI::App& app, Invocation& run);  // status, connections, close

}  // namespace nvsock::cli
