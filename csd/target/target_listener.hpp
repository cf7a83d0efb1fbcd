// Where hosts reach a CSD: a listening socket, over TCP, a Unix socket or AF_VSOCK.
//
// Whoever reaches the port can connect and say nothing, or begin a TLS handshake: until their Connect is
// accepted, connections are strangers. Those have places of their own, which silence does not hold: when all
// are taken, the newcomer has the place of the oldest stranger of the origin with the most. Connections that
// are queues are never closed for another one; the Subsystem limits their number.
//
// Limits: 48 strangers, 16 of them of one origin (csd/target/nvme_connection.hpp). Threads: event loop only.
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "csd/target/subsystem.hpp"
#include "libnvsock/base/accept_loop.hpp"
#include "libnvsock/base/result.hpp"
#include "libnvsock/socket/listening_socket.hpp"

namespace nvsock::csd {

class TargetListener {
 public:
  // `address` as ListeningSocket has it.
  static Result<std::unique_ptr<TargetListener>> open(asio::io_context& loop, Subsystem& subsystem,
                                                      std::string_view address, const Log& log);
  ~TargetListener();  // ends all connections
  TargetListener(const TargetListener&) = delete;
  TargetListener& operator=(const TargetListener&) = delete;

  const std::string& text() const { return socket_.text(); }  // the address, with the port that was chosen

 private:
  TargetListener(asio::io_context& loop, Subsystem& subsystem, ListeningSocket socket, const Log& log);
  void add(int fd, Peer peer);
  void make_place(const std::string& origin);

  Subsystem& subsystem_;
  const Log& log_;
  ListeningSocket socket_;
  std::vector<std::weak_ptr<NvmeConnection>> connections_;
  AcceptLoop accepting_;
};

}  // namespace nvsock::csd
