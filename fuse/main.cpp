// csdfs: the mount and the one broker of a drive. Start-up, signals, shutdown.
#include <linux/capability.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/signal_set.hpp>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <functional>

#include "daemon/descriptors.hpp"
#include "daemon/limits.hpp"
#include "daemon/privileges.hpp"
#include "daemon/run_loop.hpp"
#include "daemon/system_calls.hpp"
#include "fuse/access_file.hpp"
#include "fuse/daemon.hpp"
#include "fuse/filesystem.hpp"
#include "fuse/kernel_mount.hpp"
#include "fuse/log.hpp"
#include "fuse/options.hpp"
#include "fuse/shutdown.hpp"
#include "fuse/stale_mount.hpp"
#include "libnvsock/base/preload_shim.hpp"

namespace csdfs {
namespace {

int failed(const nvsock::Error& error) {
  std::fprintf(stderr, "csdfs: %s\n", error.text.c_str());
  return 1;
}

// Each connection of the emulated drive is a socket, and so many need more than the usual soft limit of 1024,
// which is for select(2)'s sake.
constexpr unsigned own_descriptors = 256;

// `status` tells how many connections there may be; where that is not so, it is said before somebody counts
// on it.
void warn_of_few_descriptors(spdlog::logger& log, unsigned long descriptors, unsigned connections) {
  if (descriptors >= connections + own_descriptors) return;
  log.warn(
      "RLIMIT_NOFILE {} is not enough for the {} connections of this drive, each of which is a descriptor: "
      "raise "
      "the hard limit with ulimit -Hn or LimitNOFILE=",
      descriptors, connections);
}

// Without root mounting and unmounting are the work of fusermount3, a setuid program; auto_unmount is so
// always.
bool needs_fusermount(const Options& options) {
  return geteuid() != 0 || options.auto_unmount;
}

// CAP_SYS_ADMIN mounts and unmounts, sends vendor commands to /dev/nvmeN and enters the emulated drive's
// network namespace for each of its sockets. The mountpoint may lie in a directory that only another user may
// search, and is looked up at the end too. What leads into the drive, and in an emulated one what is
// published there, may have low ports.
nvsock::Result<void> drop_privileges(const Options& options) {
  nvsock::daemon::Kept kept{.capabilities = {CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE},
                            .setuid_programs = geteuid() != 0};
  // csd-target's socket may be another user's.
  if (options.device.starts_with("unix:")) kept.capabilities.push_back(CAP_DAC_OVERRIDE);
  return nvsock::daemon::drop_privileges(kept);
}

// A filter would be fusermount3's as well, and without privileges of ours keep it from having its own.
nvsock::Result<nvsock::daemon::OnForbidden> restrict_system_calls(const Options& options) {
  using nvsock::daemon::OnForbidden;
  const bool possible = !needs_fusermount(options);
  const OnForbidden chosen = options.seccomp.value_or(possible ? OnForbidden::kill : OnForbidden::none);
  if (chosen != OnForbidden::none && !possible)
    return nvsock::Error{EINVAL,
                         "seccomp= needs root and no auto_unmount: it would keep fusermount3 from working"};
  const bool emulated = options.device.starts_with("emu:");
  const auto restricted =
      nvsock::daemon::restrict_system_calls("csdfs", chosen,
                                            {.mounts = true,
                                             .commands_nvme = options.device.starts_with("/"),
                                             .enters_networks = emulated,
                                             .socket_files = true,
                                             .local_sockets = true},
                                            options.foreground);
  if (!restricted) return restricted.error();
  return chosen;
}

// New kernels can abort a whole mount when one request waits too long, as a blocked read does by design.
void warn_of_request_timeouts(spdlog::logger& log) {
  for (const char* name : {"default_request_timeout", "max_request_timeout"}) {
    unsigned seconds = 0;
    if (std::ifstream("/proc/sys/fs/fuse/" + std::string(name)) >> seconds && seconds != 0) {
      log.warn("sysctl fs.fuse.{} is {} s: the kernel will end this mount when a read waits that long", name,
               seconds);
    }
  }
}

// In the background the log is not where the one looks who starts it.
void tell_that_others_may_nothing(spdlog::logger& log, bool foreground) {
  constexpr char text[] =
      "allow_other without access rules: other users may open nothing; say what they may with -o access=FILE "
      "(csdfs(8), ACCESS)";
  log.warn(text);
  if (!foreground) std::fprintf(stderr, "csdfs: warning: %s\n", text);
}

int run(const Options& options, unsigned long descriptors) {
  nvsock::Result<Mountpoint> mountpoint = prepare_mountpoint(options.mountpoint);
  if (!mountpoint) return failed(mountpoint.error());
  nvsock::Result<AccessRules> rules{AccessRules()};
  if (!options.access.empty()) rules = load_access_rules(options.access, getuid());
  if (!rules) return failed(rules.error());

  Daemon daemon(options.foreground);
  if (const auto dropped = drop_privileges(options); !dropped) return failed(dropped.error());
  const auto on_forbidden = restrict_system_calls(options);
  if (!on_forbidden) return failed(on_forbidden.error());
  const auto log = make_log(options.foreground, options.verbose);
  if (mountpoint->replaced)
    log->warn("replaced the mount that a killed csdfs left on {}", mountpoint->path());
  if (options.allow_other && options.access.empty()) tell_that_others_may_nothing(*log, options.foreground);
  warn_of_request_timeouts(*log);

  asio::io_context loop(1);  // one thread runs it
  auto device = nvsock::Device::open(loop, options.device,
                                     {.connect_timeout = std::chrono::seconds(options.connect_timeout),
                                      .drain_timeout = std::chrono::seconds(options.drain_timeout),
                                      .log = library_log(*log)});
  if (!device) return failed(device.error());

  if (options.device.starts_with("emu:"))
    warn_of_few_descriptors(*log, descriptors, (*device)->max_streams());

  Filesystem filesystem(loop, *log);
  filesystem.access().obey(std::move(*rules), options.access);
  MountedDrive& drive = filesystem.add_drive(**device);
  KernelMount kernel_mount(loop, filesystem);
  Shutdown shutdown(loop, filesystem, *log, std::chrono::seconds(options.drain_timeout));
  filesystem.on_mounted = [&] {
    log->info("{} is mounted on {}", options.device, mountpoint->place());
    daemon.ready();
  };
  int status = 0;
  const auto end = [&](bool cut) {
    if (const auto unmounted = kernel_mount.unmount(); !unmounted) {
      log->error("{}", unmounted.error().text);
      status = 1;
    }
    filesystem.end(cut);
    shutdown.start();
  };
  kernel_mount.on_unmounted = [&] {
    if (remove_dead_mount(mountpoint->path())) {
      log->error("somebody aborted the mount on {} (/sys/fs/fuse/connections): it was removed",
                 mountpoint->path());
      status = 1;
      return end(true);
    }
    log->info("{} was unmounted", mountpoint->path());
    end(false);  // which it never is while a program has a file of it open
  };
  asio::signal_set signals(loop, SIGTERM, SIGINT, SIGHUP);
  const std::function<void(const asio::error_code&, int)> on_signal = [&](const asio::error_code& cancelled,
                                                                          int signal) {
    if (cancelled) return;
    signals.async_wait(on_signal);
    if (signal == SIGHUP && !shutdown.started()) {
      if (filesystem.access().reload()) return;
      if (!options.foreground) return log->info("SIGHUP: there is no access file to read again");
    }
    if (shutdown.started()) {
      log->info("signal {} again: ending at once", signal);
      return shutdown.end();
    }
    log->info("signal {}: unmounting {}", signal, mountpoint->path());
    kernel_mount.serve_waiting();
    if (!shutdown.started()) end(true);  // unmounted by somebody else meanwhile
  };
  signals.async_wait(on_signal);
  std::signal(SIGPIPE, SIG_IGN);

  for (const Publication& what : options.published) {
    const nvsock::Result<void> asked = drive.publisher().publish(what, {});
    if (!asked) return failed(asked.error());
  }
  for (const nvsock::ForwardSpec& what : options.forwards) {
    const auto added = drive.forwarder().add({what}, {.rebind = false});
    if (!added) return failed(added.error());
  }
  const nvsock::Result<void> mounted =
      kernel_mount.mount(*mountpoint, needs_fusermount(options), options.fuse);
  if (!mounted) return failed(mounted.error());
  const auto forbidden = nvsock::daemon::forbid_mounting(*on_forbidden, options.foreground);
  if (!forbidden) return failed(forbidden.error());
  nvsock::daemon::run_loop(loop, std::chrono::microseconds(options.busy_poll));
  return shutdown.lost() ? 1 : status;
}

}  // namespace
}  // namespace csdfs

int main(int argc, char** argv) {
  nvsock::daemon::occupy_standard_descriptors();
  nvsock::daemon::close_inherited_descriptors();
  const unsigned long descriptors =
      nvsock::daemon::raise_descriptors(nvsock::max_emulated_streams + csdfs::own_descriptors);
  nvsock::disarm_preload_shim();
  nvsock::Result<csdfs::Options> options = csdfs::parse_options(argc, argv);
  if (!options) return csdfs::failed(options.error());
  if (options->help || options->version) {
    std::fputs(options->help ? csdfs::usage().c_str() : "csdfs " NVSOCK_VERSION "\n", stdout);
    return 0;
  }
  return csdfs::run(*options, descriptors);
}
