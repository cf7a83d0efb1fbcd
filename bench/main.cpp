// nvsock-bench: how far a connection through the mount is from plain TCP.
//
// Measures the 64-byte round trip and the throughput in both directions through plain loopback TCP, a mount
// file, the preload shim, a mount over NVMe/TCP and socat, all to the same server, with the same client.
// Speed is never a test: the exit status tells whether everything could be measured, not how fast it was.
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

#include "bench/client.hpp"
#include "bench/listening.hpp"
#include "bench/many.hpp"
#include "bench/measure.hpp"
#include "bench/mount.hpp"
#include "bench/relay.hpp"
#include "bench/report.hpp"
#include "bench/server.hpp"

namespace bench {
namespace {

struct Options {
  Plan plan;
  double seconds = 0.3;
  std::set<std::string> via;
  std::string mount;
  std::string csdfs;
  std::string target;
  std::string shim;
  std::string device = "emu:";
  std::string json;
  size_t streams = 10'000;
  int server_cpu = any_cpu;

  bool wants(const char* transport) const { return via.empty() || via.contains(transport); }
};

int fail(const Error& error) {
  std::fprintf(stderr, "nvsock-bench: %s\n", error.text.c_str());
  return error.code == EINTR ? 130 : 1;
}

// What a run has started; ends with it, last started first.
struct Started {
  std::optional<Server> server;
  std::optional<Server> relay;
  std::optional<Server> target;
  std::unique_ptr<Mount> mount;
  std::unique_ptr<Mount> remote;  // the target's
};

// A mount of csd-target, over TCP: two more processes between client and server than with "mount".
Result<Transport> start_nvme_tcp(const Options& options, const std::string& port, Started& started) {
  const std::string nqn = "nqn.2026-11.test.nvsock:bench";
  auto target = start_listening([&](const std::string& listen) -> std::vector<std::string> {
    return {options.target, "--listen", "127.0.0.1:" + listen, "--nqn", nqn};
  });
  if (!target) return target.error();
  started.target.emplace(std::move(*target));
  auto mount =
      Mount::start(options.csdfs, "nvme-tcp://127.0.0.1:" + std::to_string(started.target->port) + "/" + nqn);
  if (!mount) return mount.error();
  started.remote = std::move(*mount);
  return Transport{
      "NVMe/TCP", started.remote->directory() + "/tcp/127.0.0.1:" + port, "", {}, started.remote->pid()};
}

Result<std::vector<Transport>> start_transports(const Options& options, Started& started) {
  auto server = start_server(options.server_cpu);
  if (!server) return server.error();
  started.server.emplace(std::move(*server));
  const std::string port = std::to_string(started.server->port);

  std::vector<Transport> transports;
  if (options.wants("plain")) transports.push_back({"plain TCP", port, "", {}, 0});

  if (options.wants("mount") || options.wants("shim")) {
    std::string directory = options.mount;
    pid_t csdfs = 0;
    if (directory.empty()) {
      auto mount = Mount::start(options.csdfs, options.device);
      if (!mount) return mount.error();
      started.mount = std::move(*mount);
      directory = started.mount->directory();
      csdfs = started.mount->pid();
    }
    if (options.wants("mount"))
      transports.push_back({"mount file", directory + "/tcp/127.0.0.1:" + port, "", {}, csdfs});
    if (options.wants("shim"))
      transports.push_back(
          {"shim", port, directory, {{"LD_PRELOAD", options.shim}, {"NVSOCK_MOUNT", directory}}, csdfs});
  }

  if (options.wants("nvme-tcp")) {
    auto transport = start_nvme_tcp(options, port, started);
    if (!transport) return transport.error();
    transports.push_back(std::move(*transport));
  }

  if (options.wants("socat")) {
    auto relay = start_relay(started.server->port);
    if (relay) {
      transports.push_back({"socat", std::to_string(relay->port), "", {}, 0});
      started.relay.emplace(std::move(*relay));
    } else if (relay.error().code == ENOENT) {
      std::fprintf(stderr, "nvsock-bench: %s; its column is left out\n", relay.error().text.c_str());
    } else {
      return relay.error();
    }
  }
  return transports;
}

// What was measured where, in a sentence.
std::string setting(const Options& options) {
  utsname system{};
  uname(&system);
  const size_t cpus = usable_cpus().size();
  std::ostringstream line;
  line << "Medians of " << options.plan.rounds << " rounds of " << options.seconds << " s; device "
       << (options.mount.empty() ? options.device : "behind " + options.mount) << "; " << cpus
       << (cpus == 1 ? " CPU" : " CPUs")
       << (options.server_cpu == any_cpu ? "" : ", client and server on one each") << "; " << system.sysname
       << " " << system.release << ".";
  return line.str();
}

Done keep(const std::string& path, const std::string& json) {
  if (path.empty()) return std::monostate{};
  std::ofstream file(path);
  file << json << std::flush;
  if (!file) return Error{EIO, "cannot write " + path};
  return std::monostate{};
}

Result<bool> run_streams(const Options& options) {
  const auto rows = measure_many(options.csdfs, options.streams);
  if (!rows) return rows.error();
  std::printf(
      "Streams of one drive; at \"100 us\" commands take that long to it, as to a controller, and share "
      "more.\n\n"
      "%s",
      table_of(*rows).c_str());
  if (const auto kept = keep(options.json, json_of(*rows)); !kept) return kept.error();
  return true;
}

Result<bool> run(const Options& options) {
  if (const auto held = hold_signals(); !held) return held.error();
  if (options.plan.only == "streams") return run_streams(options);
  Started started;
  const auto transports = start_transports(options, started);
  if (!transports) return transports.error();
  const auto results = measure(*transports, options.plan);
  if (!results) return results.error();

  std::printf("%s\n\n%s", setting(options).c_str(), table_of(*results).c_str());
  const auto json = json_of(*results, options.plan, options.device, setting(options));
  if (const auto kept = keep(options.json, json); !kept) return kept.error();
  return results->complete;
}

// How a measurement runs this program: one client, its figures on stdout. Positional, for it has one caller.
int client_main(int argc, char** argv) {
  ClientOrder order;
  char work = 0;
  int64_t milliseconds = 0;
  CLI::App app("Client of nvsock-bench");
  app.add_option("work", work)->required();
  app.add_option("bytes", order.bytes)->required();
  app.add_option("milliseconds", milliseconds)->required();
  app.add_option("target", order.target)->required();
  app.add_option("mount", order.mount);
  CLI11_PARSE(app, argc, argv);
  order.work = static_cast<Work>(work);
  order.duration = std::chrono::milliseconds(milliseconds);

  const auto values = run_client(order);
  if (!values) {
    std::fprintf(stderr, "nvsock-bench: client: %s\n", values.error().text.c_str());
    return 1;
  }
  for (const double value : *values) std::printf("%.17g\n", value);
  return 0;
}

// The same for many streams.
int many_main(int argc, char** argv) {
  ManyOrder order;
  CLI::App app("Streams of nvsock-bench");
  app.add_option("device", order.device)->required();
  app.add_option("distance", order.distance_us)->required();
  app.add_option("mount", order.mount)->required();
  app.add_option("csdfs", order.csdfs)->required();
  app.add_option("port", order.port)->required();
  app.add_option("streams", order.streams)->required();
  CLI11_PARSE(app, argc, argv);
  const auto figures = run_many(order);
  if (!figures) {
    std::fprintf(stderr, "nvsock-bench: client: %s\n", figures.error().text.c_str());
    return 1;
  }
  for (const Named& named : named_figures) std::printf("%.17g\n", (*figures).*named.figure);
  return 0;
}

int bench_main(int argc, char** argv) {
  std::error_code ignored;
  const auto here = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  Options options;
  options.csdfs = (here / "csdfs").string();
  options.target = (here / "csd-target").string();
  options.shim = (here.parent_path() / "lib" / "libnvsock.so").string();

  CLI::App app("Compares connections through a csdfs mount with plain TCP and with socat.");
  app.add_option("--rounds", options.plan.rounds, "Interleaved rounds; figures are medians over them")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "Duration of one measurement")
      ->check(CLI::Range(0.01, 60.0))
      ->capture_default_str();
  app.add_option(
      "--only", options.plan.only,
      "Measure only what has this text in its name, as in \"read\"; \"streams\": many at a time instead");
  app.add_option("--streams", options.streams, "How many with --only streams")
      ->check(CLI::Range(1, 16384))
      ->capture_default_str();
  app.add_option("--via", options.via, "Only these of plain,mount,shim,nvme-tcp,socat")
      ->delimiter(',')
      ->check(CLI::IsMember({"plain", "mount", "shim", "nvme-tcp", "socat"}));
  app.add_option("--device", options.device, "Device that csdfs mounts")->capture_default_str();
  app.add_option("--mount", options.mount, "Use this mount instead of a new one")
      ->check(CLI::ExistingDirectory);
  app.add_option("--csdfs", options.csdfs, "The csdfs to start")->capture_default_str();
  app.add_option("--target", options.target, "The csd-target to start")->capture_default_str();
  app.add_option("--shim", options.shim, "The shim to preload")->capture_default_str();
  app.add_option("--json", options.json, "Also write figures and samples to this file");
  bool unpinned = false;
  app.add_flag("--unpinned", unpinned, "Let client and server share a CPU when the scheduler likes");
  CLI11_PARSE(app, argc, argv);

  // Whether both ends happen to share a CPU changes a round trip several times over, so it is not left to
  // chance. What is in between runs where it likes.
  if (const auto cpus = usable_cpus(); !unpinned && cpus.size() > 1) {
    options.server_cpu = cpus.front();
    options.plan.client_cpu = cpus.back();
  }
  if (!options.mount.empty()) options.mount = std::filesystem::canonical(options.mount).string();
  options.plan.duration =
      std::chrono::round<std::chrono::milliseconds>(std::chrono::duration<double>(options.seconds));
  const auto complete = run(options);
  if (!complete) return fail(complete.error());
  return *complete ? 0 : 1;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  try {
    const std::string_view part = argc > 1 ? argv[1] : "";
    if (part == "client") return bench::client_main(argc - 1, argv + 1);
    if (part == "many") return bench::many_main(argc - 1, argv + 1);
    return bench::bench_main(argc, argv);
  } catch (const std::exception& error) {  // out of memory, or of the standard library
    std::fprintf(stderr, "nvsock-bench: %s\n", error.what());
    return 1;
  }
}
