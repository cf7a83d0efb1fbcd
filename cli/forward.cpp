// nvsock forward and nvsock publish: what leads into a mounted drive, and out of it.
#include <cstdio>
#include <memory>
#include <sstream>

#include "cli/invocation.hpp"
#include "cli/mounts.hpp"

namespace nvsock::cli {
namespace {

// The two directions differ in their words.
struct Words {
  const char* add;
  const char* remove;
  const char* table;  // the mount's file
};
constexpr Words forwards{"forward", "unforward", "forwards"};
constexpr Words publications{"publish", "unpublish", "published"};

struct Options {
  std::vector<std::string> specs;
  std::vector<std::string> removed;
  bool remove_all = false;
  bool list = false;
  bool no_rebind = false;
};

// The first column of a table of the mount: the names that its rows are removed by.
std::vector<std::string> names_of(const std::string& table) {
  std::vector<std::string> names;
  std::istringstream lines(table);
  std::string line;
  std::getline(lines, line);  // the heading
  while (std::getline(lines, line)) names.push_back(line.substr(0, line.find(' ')));
  return names;
}

Result<void> change(const Invocation& run, const Words& words, const Options& options) {
  limit_answer(run);
  const Result<std::string> mount = choose_mount(run);
  if (!mount) return mount.error();
  const std::string table = *mount + "/" + words.table;
  const bool changes = options.remove_all || !options.removed.empty() || !options.specs.empty();
  if (changes) {
    Result<Control> control = Control::open(*mount);
    if (!control) return control.error();
    std::vector<std::string> removed = options.removed;
    if (options.remove_all) {
      const Result<std::string> rows = read_file(table);
      if (!rows) return rows.error();
      removed = names_of(*rows);
    }
    for (const std::string& name : removed) {
      const auto done = control->command(std::string(words.remove) + " " + name + "\n");
      if (!done) return done.error();
    }
    for (std::string spec : options.specs) {
      // INSIDE=SERVICE, as csdfs -o publish= has it.
      if (const size_t middle = spec.find('='); middle != spec.npos) spec[middle] = ' ';
      const auto done =
          control->command(std::string(words.add) + (options.no_rebind ? " no-rebind " : " ") + spec + "\n");
      if (!done) return done.error();
      if (!run.quiet) std::fputs(done->c_str(), stdout);
    }
  }
  if (changes && !options.list) return {};
  const Result<std::string> rows = read_file(table);
  if (!rows) return rows.error();
  std::fputs(rows->c_str(), stdout);
  return {};
}

CLI::App* add(CLI::App& app, Invocation& run, const Words& words, const std::shared_ptr<Options>& options,
              const char* what, const char* spec) {
  CLI::App* const command = app.add_subcommand(words.add, what);
  command->add_option("SPEC", options->specs, spec);
  command->add_option("--remove", options->removed, "end one, by its name in the list");
  command->add_flag("--remove-all", options->remove_all, "end all of them");
  command->add_flag("-l,--list", options->list, "list them (what it does when nothing else is given)");
  command->callback([&run, &words, options] {
    run.action = [&run, &words, options] { return change(run, words, *options); };
  });
  return command;
}

}  // namespace

void add_forward(CLI::App& app, Invocation& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* const command =
      add(app, run, forwards, options, "let ports of this host lead into a mounted drive",
          "[BIND:]PORT:[HOST:]PORT, unix:/PATH:[HOST:]PORT or vsock:PORT:[HOST:]PORT");
  command->add_flag("--no-rebind", options->no_rebind, "fail if the port leads somewhere already");
  add(app, run, publications, std::make_shared<Options>(),
      "let services of this host be reached inside a mounted drive",
      "[HOST:]PORT=ADDRESS:PORT, the drive's first");
}

}  // namespace nvsock::cli
