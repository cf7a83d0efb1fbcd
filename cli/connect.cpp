// nvsock connect: standard input and output as a connection inside the drive; what ssh's ProxyCommand wants.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "cli/invocation.hpp"
#include "cli/mounts.hpp"
#include "cli/pump.hpp"

namespace nvsock::cli {
namespace {

struct Options {
  std::string host;
  std::string port;
  bool udp = false;
  bool fdpass = false;
};

// For ssh_config(5), ProxyUseFdpass: standard output is a socket, and the descriptor goes through it.
Result<void> pass(int fd) {
  char byte = 0;
  iovec data{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  if (sendmsg(STDOUT_FILENO, &message, MSG_NOSIGNAL) == 1) return {};
  const int code = errno;
  return Error{code == ENOTSOCK ? EINVAL : code,
               "--fdpass: standard output is not a socket that takes a descriptor (" +
                   std::string(std::strerror(code)) + "); it is for ssh's ProxyUseFdpass"};
}

Result<void> connect(const Invocation& run, const Options& options) {
  Result<Endpoint> where = parse_host(options.host);
  if (!where) return where.error();
  where->type = options.udp ? SocketType::datagram : SocketType::stream;
  const Result<uint16_t> port = parse_port(options.port, where->type);
  if (!port) return port.error();
  where->port = *port;
  const Result<std::string> mount = choose_mount(run);
  if (!mount) return mount.error();
  limit_time(std::max(run.timeout, 0.0));
  const Result<int> connection = open_connection(*mount, *where);
  limit_time(0);
  if (!connection) return connection.error();
  const Result<void> result =
      options.fdpass ? pass(*connection) : pump(*connection, STDIN_FILENO, STDOUT_FILENO);
  close(*connection);
  return result;
}

}  // namespace

void add_connect(CLI::App& app, Invocation& run) {
  CLI::App* const command =
      app.add_subcommand("connect", "join standard input and output with a service inside");
  const auto options = std::make_shared<Options>();
  command->add_option("HOST", options->host, "address or name, as seen inside the drive")->required();
  command->add_option("PORT", options->port, "port, or name of services(5)")->required();
  command->add_flag("-u,--udp", options->udp, "datagrams: each read of standard input is one");
  command->add_flag("--fdpass", options->fdpass,
                    "pass the connection through standard output, for ssh's ProxyUseFdpass");
  command->callback([&run, options] { run.action = [&run, options] { return connect(run, *options); }; });
}

}  // namespace nvsock::cli
