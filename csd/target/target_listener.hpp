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

namespace nvsock::csd {

class TargetListener {
 public:
  // `address`: ADDRESS:PORT (port 0: any that is free), unix:PATH, whose socket is made, or vsock:CID:PORT,
  // with CID a number or "any".
  static Result<std::unique_ptr<TargetListener>> open(asio::io_context& loop, Subsystem& subsystem,
                                                      std::string_view address, const Log& log);
  ~TargetListener();  // ends all connections
  TargetListener(const TargetListener&) = delete;
  TargetListener& operator=(const TargetListener&) = delete;

  const std::string& text() const { return text_; }  // the address, with the port that was chosen

 private:
  TargetListener(asio::io_context& loop, Subsystem& subsystem, int fd, const Log& log);
  void add(int fd, Peer peer);
  void make_place(const std::string& origin);

  Subsystem& subsystem_;
  const Log& log_;
  std::string text_;
  std::string unix_path_;  // to be removed
  std::vector<std::weak_ptr<NvmeConnection>> connections_;
  AcceptLoop accepting_;
};

}  // namespace nvsock::csd
