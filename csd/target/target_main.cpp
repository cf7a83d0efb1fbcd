// csd-target: a CSD on the network. Linux's nvme-tcp driver connects to it and has a drive that csdfs mounts.
#include <linux/capability.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "csd/base/drive_options.hpp"
#include "csd/sockets/allow_list.hpp"
#include "csd/sockets/netns.hpp"
#include "csd/sockets/socket_services.hpp"
#include "csd/target/host_keys.hpp"
#include "csd/target/namespace.hpp"
#include "csd/target/subsystem.hpp"
#include "csd/target/target_listener.hpp"
#include "daemon/descriptors.hpp"
#include "daemon/landlock.hpp"
#include "daemon/limits.hpp"
#include "daemon/log_queue.hpp"
#include "daemon/privileges.hpp"
#include "daemon/system_calls.hpp"
#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/base/preload_shim.hpp"

namespace nvsock::csd {
namespace {

struct Options {
  std::string listen = "127.0.0.1:4420";
  std::string nqn;
  uint64_t size = 0;
  std::string file;
  std::string netns;
  std::string user;
  std::vector<std::string> allow;
  std::vector<std::string> allow_listen;
  std::vector<std::string> hosts;
  unsigned lease = 30;
  std::vector<std::string> tls_keys;
  std::string seccomp = "kill";
  bool verbose = false;
};

constexpr uint64_t default_size = 64 << 20;

// The same name for the same machine and address, so that hosts find their drive again.
std::string default_nqn(const std::string& listen) {
  char machine[256] = {};
  gethostname(machine, sizeof machine - 1);
  const Uuid id = uuid_of(std::string(machine) + ' ' + listen);
  std::string text = "nqn.2014-08.org.nvmexpress:uuid:";
  for (size_t i = 0; i < id.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", id[i]);
    text += digits;
  }
  return text;
}

Log make_log(bool verbose) {
  auto queue = std::make_shared<daemon::LogQueue>(daemon::stderr_output("csd-target"));
  return [queue, lowest = verbose ? LogLevel::info : LogLevel::warning](LogLevel level,
                                                                        const std::string& text) {
    if (level >= lowest) queue->add(level, text);
  };
}

int failed(const Error& error) {
  std::fprintf(stderr, "csd-target: %s\n", error.text.c_str());
  return 1;
}

// Entering a network namespace for each socket needs CAP_SYS_ADMIN, and low ports inside it the other one.
Result<void> drop_privileges(const Options& options) {
  daemon::Kept kept{.user = options.user};
  if (!options.netns.empty()) kept.capabilities = {CAP_SYS_ADMIN, CAP_NET_BIND_SERVICE};
  return daemon::drop_privileges(kept);
}

// Where the folder is that a file lies in, behind symbolic links; with such, resolv.conf is another
// program's.
std::string folder_of(const std::string& path) {
  std::error_code failed;
  return std::filesystem::weakly_canonical(path, failed).parent_path();
}

// Names are looked up for as long as it runs, in files that are replaced meanwhile: rules are for folders.
// The numbers of questions to name servers come from /dev/urandom.
Result<void> restrict_reach(const Options& options) {
  daemon::Reach reach{.read = {"/etc", folder_of("/etc/resolv.conf"), "/dev/urandom"},
                      .listens = !options.allow_listen.empty()};
  if (!options.netns.empty()) reach.read.push_back(folder_of("/etc/netns/" + options.netns + "/resolv.conf"));
  if (options.listen.starts_with("unix:")) reach.remove_in = {folder_of(options.listen.substr(5))};
  return daemon::restrict_reach(reach);
}

Result<void> restrict_system_calls(const Options& options) {
  const auto chosen = daemon::parse_on_forbidden(options.seccomp);
  return daemon::restrict_system_calls(
      "csd-target", chosen.value_or(daemon::OnForbidden::kill),
      {.enters_networks = !options.netns.empty(), .socket_files = options.listen.starts_with("unix:")}, true);
}

// The end: hosts are gone, and what they had closed in good order gets a few seconds to reach its services.
class Shutdown {
 public:
  static constexpr std::chrono::seconds patience{5};

  Shutdown(asio::io_context& loop, const Subsystem& subsystem)
      : loop_(loop), subsystem_(subsystem), timer_(loop) {}

  void start() {
    deadline_ = std::chrono::steady_clock::now() + patience;
    step();
  }

 private:
  void step() {
    if (subsystem_.undelivered().none() || std::chrono::steady_clock::now() >= deadline_) return loop_.stop();
    timer_.expires_after(std::chrono::milliseconds(20));
    timer_.async_wait([this](const asio::error_code&) { step(); });
  }

  asio::io_context& loop_;
  const Subsystem& subsystem_;
  asio::steady_timer timer_;
  std::chrono::steady_clock::time_point deadline_;
};

int run(const Options& options) {
  // A host that may connect to a service must not be able to take its place.
  Allowed allowed{.to_listen = AllowList(AllowList::Empty::nothing)};
  for (const std::string& text : options.allow) {
    if (const auto added = allowed.to_connect.add(text); !added) return failed(added.error());
  }
  for (const std::string& text : options.allow_listen) {
    if (const auto added = allowed.to_listen.add(text); !added) return failed(added.error());
  }
  Result<NetworkNamespace> where = NetworkNamespace::open(options.netns);
  if (!where) return failed(where.error());

  std::unique_ptr<TlsContext> tls;
  if (!options.tls_keys.empty()) {
    auto keys = load_host_keys(options.tls_keys);
    if (!keys) return failed(keys.error());
    auto context = TlsContext::for_target(std::move(*keys), {options.nqn, std::string(nvme::discovery_nqn)});
    if (!context) return failed(context.error());
    tls = std::move(*context);
  }

  asio::io_context loop(1);  // one thread runs it
  AsioClock clock(loop);
  SocketServices services(loop, std::make_shared<const NetworkNamespace>(std::move(*where)),
                          std::move(allowed));
  const auto storage = Namespace::open(loop, options.file, options.size);
  if (!storage) return failed(storage.error());
  const Log log = make_log(options.verbose);
  daemon::LimitWatch limits;
  services.on_no_socket = [&](int error) {
    if (const auto news = limits.news(error)) log(LogLevel::error, "connections inside fail: " + *news);
  };
  Subsystem subsystem(loop, clock, services, **storage,
                      {.nqn = options.nqn,
                       .hosts = options.hosts,
                       .lease = std::chrono::seconds(options.lease),
                       .tls = std::move(tls),
                       .log = log});
  auto listener = TargetListener::open(loop, subsystem, options.listen, log);
  if (!listener) return failed(listener.error());
  if (const auto dropped = drop_privileges(options); !dropped) return failed(dropped.error());
  if (const auto restricted = restrict_reach(options); !restricted) return failed(restricted.error());
  if (const auto restricted = restrict_system_calls(options); !restricted) return failed(restricted.error());

  asio::signal_set signals(loop, SIGTERM, SIGINT);
  Shutdown shutdown(loop, subsystem);
  signals.async_wait([&](const asio::error_code& cancelled, int) {
    if (cancelled) return;
    signals.async_wait([&](const asio::error_code& also_cancelled, int) {
      if (!also_cancelled) loop.stop();
    });
    listener->reset();
    subsystem.end_sessions();
    shutdown.start();
  });
  std::printf("listening on %s, subsystem %s\n", (*listener)->text().c_str(), options.nqn.c_str());
  std::fflush(stdout);
  loop.run();
  const Undelivered left = subsystem.undelivered();
  if (left.none()) return 0;
  log(LogLevel::warning, std::to_string(left.bytes) + " bytes of " + std::to_string(left.connections) +
                             " connections were not taken by their services: they are lost");
  return 1;
}

}  // namespace
}  // namespace nvsock::csd

int main(int argc, char** argv) {
  using namespace nvsock::csd;
  nvsock::daemon::occupy_standard_descriptors();
  nvsock::daemon::close_inherited_descriptors();
  std::signal(SIGPIPE, SIG_IGN);
  // Each connection inside is a socket; the usual soft limit of 1024 is for select(2)'s sake.
  nvsock::daemon::raise_descriptors(0);
  nvsock::disarm_preload_shim();
  Options options;
  CLI::App app("A computational storage drive on the network: an NVMe/TCP controller in software.",
               "csd-target");
  app.set_version_flag("--version", "csd-target " NVSOCK_VERSION);
  app.add_option("--listen", options.listen, "ADDRESS:PORT, unix:PATH or vsock:CID:PORT")
      ->capture_default_str();
  app.add_option("--nqn", options.nqn, "name of the subsystem (default: made of the machine's name)")
      ->check([](const std::string& nqn) {
        const bool fits = nqn.starts_with("nqn.") && nqn.size() <= nvsock::nvme::max_nqn;
        return fits ? "" : "an NQN starts with \"nqn.\" and has at most 223 bytes: " + nqn;
      });
  app.add_option("--size", options.size,
                 "bytes of the namespace, with K, M, G (default: 64M, or the size of --file)")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--file", options.file, "where the namespace is kept (default: in memory)");
  app.add_option("--netns", options.netns, "network namespace whose services hosts reach, see ip-netns(8)");
  app.add_option("--user", options.user,
                 "user to become once everything is open (default: stay who started it)");
  app.add_option("--allow", options.allow, "HOST:PORT that hosts may reach, * for any (default: all)");
  app.add_option("--allow-listen", options.allow_listen,
                 "HOST:PORT where hosts may listen, to publish services, * for any (default: none)");
  app.add_option("--hostnqn", options.hosts, "host that may connect (default: all)");
  app.add_option(
         "--tls-key", options.tls_keys,
         "HOSTNQN=FILE, a directory of files named so, or a FILE for all hosts: TLS keys, which hosts "
         "need (default: no TLS)")
      ->check([](const std::string& file) { return file.empty() ? "the name of a file is expected" : ""; });
  app.add_option("--lease", options.lease, "seconds that connections outlive the way to their host")
      ->check(CLI::Range(1u, nvsock::csd::max_lease))
      ->capture_default_str();
  app.add_option("--seccomp", options.seccomp,
                 "what a system call that csd-target never makes does: kill, log or none")
      ->check(CLI::IsMember({"kill", "log", "none"}))
      ->capture_default_str();
  app.add_flag("-v,--verbose", options.verbose, "log hosts that come and go");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return failed({EINVAL, std::string(error.what()) + "; see csd-target --help"});
  }
  if (options.nqn.empty()) options.nqn = default_nqn(options.listen);
  if (options.file.empty() && options.size == 0) options.size = default_size;
  return run(options);
}
