// One name, asked of hosts(5) and of the name servers inside the drive.
//
// By c-ares, because a question that it asks can be taken back, and costs neither a thread nor a wait:
// getaddrinfo(3) blocks for as long as a name server is silent, and cannot be cancelled, so that a few names
// that hang would hold every thread one is willing to give. The price: of nsswitch.conf(5) only `files` and
// `dns` are asked, in their order there.
//
// Each query has a c-ares channel of its own (about 75 KB and a socket a name server, while it lasts): a
// channel can be destroyed at any time, where a shared one keeps the questions nobody waits for until they
// time out. Limits: 8 addresses, 30 s. Threads: event loop only. Never blocks.
#pragma once

#include <asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "csd/sockets/netns.hpp"
#include "libnvsock/base/socket_address.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock::csd {

using SocketAddresses = std::vector<SocketAddress>;

// What a name stands for. Ports are 0.
struct ResolvedName {
  SocketAddresses addresses;   // none: it cannot be resolved
  std::chrono::seconds ttl{};  // how long the name servers say it holds; 0 from hosts(5)
};

// Where questions go.
struct NameServers {
  std::string resolv_conf;  // file; empty: /etc/resolv.conf. Read for each name, so that changes are followed
  uint16_t port = 53;       // other than 53: for tests
};

class NameQuery {
 public:
  using Answer = std::function<void(ResolvedName)>;

  // Asks. The answer comes from the loop, once, and may destroy the query. `answered` is set, and nobody is
  // called, when it is there at once: hosts(5) had the name, or there is nobody to ask.
  NameQuery(asio::io_context& loop, const NetworkNamespace& where, const NameServers& servers,
            const std::string& node, relay_v2::Family family, Answer answer,
            std::optional<ResolvedName>& answered);
  ~NameQuery();  // takes the question back

  // What hosts(5) says, at once: a short file is read.
  static ResolvedName ask_hosts_file(const std::string& node, relay_v2::Family family);

 private:
  class Channel;
  std::shared_ptr<Channel> channel_;  // with handlers that are queued
};

}  // namespace nvsock::csd
