// nvsock list: the drives of this host, mounted and not.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "cli/invocation.hpp"
#include "cli/mounts.hpp"
#include "libnvsock/base/quoted.hpp"

namespace nvsock::cli {
namespace {

void print_row(const std::string& device, const std::string& model, const std::string& dialect,
               const std::string& connections, const std::string& mount) {
  std::printf("%-32s %-40s %-9s %11s  %s\n", device.c_str(), model.c_str(), dialect.c_str(),
              connections.c_str(), mount.c_str());
}

// NVMe controllers, as the kernel has them.
std::vector<std::string> controllers() {
  std::vector<std::string> names;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/nvme", none)) {
    names.push_back(entry.path().filename());
  }
  std::ranges::sort(names);
  return names;
}

Result<void> list(const Invocation& run) {
  limit_answer(run);
  print_row("DEVICE", "MODEL", "DIALECT", "CONNECTIONS", "MOUNT");
  std::vector<std::string> shown;
  for (const std::string& mount : mounts()) {
    const Result<std::string> status = read_file(mount + "/status");
    if (!status) {
      print_row("?", "", "", "", mount + " (" + status.error().text + ")");
      continue;
    }
    const std::string device = status_value(*status, "device");
    shown.push_back(device.substr(0, device.find('?')));
    const std::string dialect = status_value(*status, "dialect");
    print_row(device, status_value(*status, "model"), dialect.substr(0, dialect.find(' ')),
              status_value(*status, "connections in use"), mount);
  }
  for (const std::string& name : controllers()) {
    const std::string device = "/dev/" + name;
    if (std::ranges::find(shown, device) != shown.end()) continue;
    std::string model;
    std::getline(std::ifstream("/sys/class/nvme/" + name + "/model"), model);
    model.erase(model.find_last_not_of(' ') + 1);
    print_row(device, printable(model), "-", "-", "-");
  }
  return {};
}

}  // namespace

void add_list(CLI::App& app, Invocation& run) {
  app.add_subcommand("list", "list the drives of this host")->callback([&run] {
    run.action = [&run] { return list(run); };
  });
}

}  // namespace nvsock::cli
