// nvsock status, connections and close: what a mounted drive is doing.
#include <cstdio>
#include <memory>

#include "cli/invocation.hpp"
#include "cli/mounts.hpp"

namespace nvsock::cli {
namespace {

Result<void> show(const Invocation& run, const std::string& name, bool json) {
  limit_answer(run);
  const Result<std::string> mount = choose_mount(run);
  if (!mount) return mount.error();
  const Result<std::string> text = read_file(*mount + "/" + name + (json ? ".json" : ""));
  if (!text) return text.error();
  std::fputs(text->c_str(), stdout);
  return {};
}

void add_file(CLI::App& app, Invocation& run, const char* name, const char* what) {
  CLI::App* const command = app.add_subcommand(name, what);
  const auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "for programs, see docs/json.md");
  command->callback(
      [&run, name, json] { run.action = [&run, name, json] { return show(run, name, *json); }; });
}

Result<void> close_connection(const Invocation& run, const std::string& number) {
  limit_answer(run);
  const Result<std::string> mount = choose_mount(run);
  if (!mount) return mount.error();
  Result<Control> control = Control::open(*mount);
  if (!control) return control.error();
  const Result<std::string> done = control->command("close " + number + "\n");
  if (!done) return done.error();
  return {};
}

}  // namespace

void add_state(CLI::App& app, Invocation& run) {
  add_file(app, run, "status", "tell the state of a mounted drive");
  add_file(app, run, "connections", "list its connections");
  CLI::App* const command = app.add_subcommand("close", "end one of its connections, as a reset");
  const auto number = std::make_shared<std::string>();
  command->add_option("N", *number, "its number in the list")->required();
  command->callback(
      [&run, number] { run.action = [&run, number] { return close_connection(run, *number); }; });
}

}  // namespace nvsock::cli
