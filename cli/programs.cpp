// nvsock mount, umount and emulate: csdfs, umount(8) and csd-target by the names of one command. They take
// the place of this process; what follows the name is theirs.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "cli/invocation.hpp"

namespace nvsock::cli {
namespace {

// Beside this program, as in a build, or where the PATH has it.
std::string program_path(const std::string& name) {
  std::error_code none;
  const auto beside = std::filesystem::read_symlink("/proc/self/exe", none).replace_filename(name);
  return access(beside.c_str(), X_OK) == 0 ? beside.string() : name;
}

Result<void> become(const std::string& name, const std::vector<std::string>& arguments) {
  const std::string path = program_path(name);
  std::vector<char*> argv{const_cast<char*>(name.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execvp(path.c_str(), argv.data());
  return Error{errno, "cannot start " + path + ": " + std::strerror(errno)};
}

void add_program(CLI::App& app, Invocation& run, const char* word, const char* program, const char* what) {
  CLI::App* const command = app.add_subcommand(word, what);
  command->prefix_command()->fallthrough(false);
  command->set_help_flag();  // theirs
  command->callback([&run, command, program] {
    run.action = [command, program] { return become(program, command->remaining()); };
  });
}

}  // namespace

void add_programs(CLI::App& app, Invocation& run) {
  add_program(app, run, "mount", "csdfs", "mount a drive: csdfs(8)");
  add_program(app, run, "umount", "umount", "unmount one: umount(8)");
  add_program(app, run, "emulate", "csd-target", "make this machine a drive on the network: csd-target(8)");
}

}  // namespace nvsock::cli
