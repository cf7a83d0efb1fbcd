// nvsock: everything that people do with drives, in one command.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/invocation.hpp"
#include "daemon/descriptors.hpp"
#include "libnvsock/base/preload_shim.hpp"
#include "libnvsock/base/quoted.hpp"

namespace nvsock::cli {
namespace {

size_t edit_distance(std::string_view from, std::string_view to) {
  std::vector<size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < from.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < to.size(); ++j) {
      const size_t replaced = diagonal + (from[i] != to[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

// What CLI11 says of a misspelt subcommand is that there is none. The first word is it, where no option of
// everybody's comes before.
std::optional<std::string> unknown_command(const CLI::App& app, int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (word.empty() || word.starts_with('-')) return std::nullopt;
  std::string nearest;
  size_t least = 3;  // two mistakes
  for (const CLI::App* const command : app.get_subcommands([](const CLI::App*) { return true; })) {
    const size_t distance = edit_distance(word, command->get_name());
    if (distance == 0) return std::nullopt;
    if (distance >= least) continue;
    least = distance;
    nearest = command->get_name();
  }
  return quoted(word) + " is no command" +
         (nearest.empty() ? "; see nvsock --help" : "; did you mean \"" + nearest + "\"?");
}

}  // namespace
}  // namespace nvsock::cli

int main(int argc, char** argv) {
  using namespace nvsock::cli;
  nvsock::daemon::occupy_standard_descriptors();
  nvsock::disarm_preload_shim();
  std::signal(SIGPIPE, SIG_IGN);

  Invocation run;
  CLI::App app("Reaches the network services inside an NVMe computational storage device.", "nvsock");
  app.set_version_flag("-V,--version", "nvsock " NVSOCK_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--mount", run.mount, "mount of csdfs (default: $NVSOCK_MOUNT, or the only one there is)");
  app.add_flag("-q,--quiet", run.quiet, "print nothing but what was asked for");
  app.add_flag("-v,--verbose", run.verbose, "tell of every connection");
  app.add_option("--timeout", run.timeout, "seconds to wait for an answer, 0 for ever")
      ->check(CLI::NonNegativeNumber);
  add_relay(app, run);
  add_connect(app, run);
  add_forward(app, run);
  add_state(app, run);
  add_list(app, run);
  add_programs(app, run);
  if (const auto unknown = unknown_command(app, argc, argv)) {
    std::fprintf(stderr, "nvsock: %s\n", unknown->c_str());
    return Exit::usage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::fprintf(stderr, "nvsock: %s; see nvsock --help\n", error.what());
    return Exit::usage;
  }
  const nvsock::Result<void> result = run.action();
  if (result) return Exit::done;
  std::fprintf(stderr, "nvsock: %s\n", result.error().text.c_str());
  return exit_status(result.error());
}
