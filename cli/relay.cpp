// nvsock relay: a port of this host that leads to one inside a drive, with the options and defaults of the
// relay that such drives came with; many connections at once, and again and again.
//
// Where csdfs has the drive it carries them, for as long as this command runs; else the drive is opened here.
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>

#include "cli/invocation.hpp"
#include "cli/mounts.hpp"
#include "cli/pump.hpp"
#include "daemon/privileges.hpp"
#include "daemon/run_loop.hpp"
#include "libnvsock/base/reset_on_close.hpp"
#include "libnvsock/device.hpp"
#include "libnvsock/forward/forward.hpp"

namespace nvsock::cli {
namespace {

constexpr std::chrono::microseconds busy_poll{50};  // as csdfs has it
constexpr std::chrono::seconds farewell{5};         // for what was accepted from clients that have ended

struct Options {
  std::string device;
  uint16_t port_inside = 22333;
  uint16_t port = 44422;
  std::string node = "127.0.0.1";
  std::string listen;
  bool once = false;
  size_t most_connections = Forward::default_connections;
};

Log log_to_stderr(const Invocation& run) {
  const LogLevel lowest = run.verbose ? LogLevel::debug : run.quiet ? LogLevel::error : LogLevel::info;
  return [lowest](LogLevel level, const std::string& text) {
    if (level >= lowest) std::fprintf(stderr, "nvsock: %s\n", text.c_str());
  };
}

// As parse_forward() takes it.
Result<std::string> spec_of(const Options& options) {
  Result<Endpoint> inside = parse_host(options.node);
  if (!inside) return inside.error();
  inside->port = options.port_inside;
  std::string outside = "*:" + std::to_string(options.port);
  if (options.listen.starts_with("tcp:")) {
    outside = options.listen.substr(4);
  } else if (!options.listen.empty()) {
    outside = options.listen;
  }
  return outside + ":" + inside->text();
}

void tell(const Invocation& run, const Options& options, const std::string& listening, const Endpoint& inside,
          const std::string& how) {
  if (run.quiet) return;
  std::printf("listening on %s for %s inside %s%s\n", listening.c_str(), inside.text().c_str(),
              options.device.c_str(), how.c_str());
  std::fflush(stdout);
}

// The signals that end the command, as a descriptor.
int end_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  return signalfd(-1, &set, SFD_CLOEXEC);
}

Result<void> relay_by_mount(const Invocation& run, const Options& options, const std::string& mount,
                            const std::string& spec, const Endpoint& inside) {
  Result<Control> control = Control::open(mount);
  if (!control) return control.error();
  const Result<std::string> listening = control->command(
      "forward no-rebind hold max=" + std::to_string(options.most_connections) + " " + spec + "\n");
  if (!listening) return listening.error();
  limit_time(0);
  tell(run, options, listening->substr(0, listening->find('\n')), inside, ", mounted on " + mount);
  pollfd waits[] = {{.fd = end_signals(), .events = POLLIN, .revents = 0},
                    {.fd = control->fd(), .events = 0, .revents = 0}};
  while (poll(waits, 2, -1) < 0) continue;
  if (waits[0].revents != 0) return {};
  return Error{ENODEV, "the mount on " + mount + " is gone"};
}

// One connection, which this process carries itself, through the mount.
Result<void> relay_one(const Invocation& run, const Options& options, const std::string& mount,
                       const ForwardSpec& spec) {
  Result<ListeningSocket> socket =
      ListeningSocket::open(spec.listen.back(), {.backlog = 1, .only_ipv6 = false, .unix_mode = 0600});
  if (!socket) return socket.error();
  limit_time(0);
  tell(run, options, socket->text(), spec.inside, ", mounted on " + mount);
  const int listening = socket->take_fd();
  fcntl(listening, F_SETFL, fcntl(listening, F_GETFL) & ~O_NONBLOCK);
  const int client = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (client < 0) return Error{errno, std::string("accept: ") + std::strerror(errno)};
  close(listening);
  reset_on_close(client, true);
  const Result<int> connection = open_connection(mount, spec.inside);
  if (!connection) return connection.error();
  const Result<void> result = pump(*connection, client, client);
  if (!result) return result;
  reset_on_close(client, false);
  return {};
}

Result<void> relay_by_device(const Invocation& run, const Options& options, ForwardSpec spec) {
  limit_time(0);  // opening has bounds of its own
  daemon::Kept kept{.capabilities = {CAP_SYS_ADMIN, CAP_NET_BIND_SERVICE}};
  if (options.device.starts_with("unix:")) kept.capabilities.push_back(CAP_DAC_OVERRIDE);
  if (const auto dropped = daemon::drop_privileges(kept); !dropped) return dropped;

  asio::io_context loop(1);
  const Log log = log_to_stderr(run);
  auto device = Device::open(loop, options.device, {.log = log});
  if (!device) return device.error();
  BufferPool blocks(StreamSplice::block_size, Forward::kept_blocks);
  bool over = false;
  auto forward = Forward::open(
      loop, blocks, std::move(spec),
      [&](const Endpoint& where, StreamObserver* observer) { return (*device)->connect(where, observer); },
      {.most_connections = options.most_connections, .once = options.once, .log = log, .on_ended = [&] {
         if (options.once) {
           over = true;
           loop.stop();
         }
       }});
  if (!forward) return forward.error();
  tell(run, options, (*forward)->listening(), (*forward)->inside(), "");
  asio::signal_set signals(loop, SIGINT, SIGTERM, SIGHUP);
  signals.async_wait([&](const asio::error_code&, int) { loop.stop(); });
  daemon::run_loop(loop, busy_poll);

  const bool failed = over && (*forward)->counters().failed > 0;
  forward->reset();
  (*device)->finish();
  loop.restart();
  const auto deadline = std::chrono::steady_clock::now() + farewell;
  while (!(*device)->finished() && std::chrono::steady_clock::now() < deadline) {
    loop.run_for(std::chrono::milliseconds(20));
    loop.restart();
  }
  const Undelivered left = (*device)->undelivered();
  if (!left.none()) {
    return Error{
        EIO, std::to_string(left.bytes) + " bytes were accepted and not taken by the service: they are lost"};
  }
  if (failed) return Error{ECONNRESET, "the connection failed"};
  return {};
}

Result<void> relay(const Invocation& run, const Options& options) {
  limit_answer(run);
  const Result<std::string> text = spec_of(options);
  if (!text) return text.error();
  Result<std::vector<ForwardSpec>> specs = parse_forward(*text);
  if (!specs) return specs.error();
  if (specs->size() != 1) return Error{EINVAL, "--listen takes one port"};
  ForwardSpec& spec = specs->front();
  const std::optional<std::string> mount = mount_of(options.device);
  if (!mount) return relay_by_device(run, options, std::move(spec));
  if (options.once) return relay_one(run, options, *mount, spec);
  return relay_by_mount(run, options, *mount, *text, spec.inside);
}

}  // namespace

void add_relay(CLI::App& app, Invocation& run) {
  CLI::App* const command =
      app.add_subcommand("relay", "let connections to a port of this host reach one inside a drive");
  const auto options = std::make_shared<Options>();
  command
      ->add_option("-d,--device", options->device,
                   "drive, as csdfs takes it: /dev/nvme1, nvme-tcp://..., emu:")
      ->required();
  command->add_option("-P,--port-inside", options->port_inside, "port inside the drive")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  command->add_option("-p,--port", options->port, "port of this host, on all addresses; 0: one that is free")
      ->capture_default_str();
  command->add_option("-N,--node", options->node, "address or name, as seen inside the drive")
      ->capture_default_str();
  command->add_option("--listen", options->listen,
                      "instead of -p: tcp:ADDRESS:PORT, unix:/PATH or vsock:PORT");
  command->add_flag("--once", options->once, "end after the first connection");
  command->add_option("--max-connections", options->most_connections, "at a time; further ones are reset")
      ->check(CLI::Range(1, 65535))
      ->capture_default_str();
  command->callback([&run, options] { run.action = [&run, options] { return relay(run, *options); }; });
}

}  // namespace nvsock::cli
