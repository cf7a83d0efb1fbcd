// Services of the host published inside the drive: connections to an address in there reach a TCP service
// here.
//
// A published port is a listener of the drive and the connections that came through it, each spliced with one
// to the service. What is published stays so when the drive's session is lost
// (libnvsock/socket/listener.hpp). Threads: event loop only. Nothing blocks.
#pragma once

#include <spdlog/logger.h>

#include <asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fuse/status_report.hpp"
#include "libnvsock/device.hpp"
#include "libnvsock/socket/stream_splice.hpp"

namespace csdfs {

struct Publication {
  nvsock::Endpoint inside;   // an address of the drive
  nvsock::Endpoint service;  // an address of the host
  uid_t owner = 0;           // who published it
};

// [HOST:]PORT inside, which is 127.0.0.1 when no host is given. EINVAL with a sentence.
nvsock::Result<nvsock::Endpoint> parse_inside(std::string_view text);
// And ADDRESS:PORT on the host. EINVAL with a sentence.
nvsock::Result<Publication> parse_publication(std::string_view inside, std::string_view service);

class Publisher {
 public:
  static constexpr size_t most_ports = 64;
  // Of one port. Two descriptors and at most 1 MiB each; an open port shall not be able to exhaust csdfs.
  static constexpr size_t most_connections = 256;

  Publisher(asio::io_context& loop, nvsock::Device& device, spdlog::logger& log);
  ~Publisher();

  // Called once: 0 when the drive listens, or the errno of its refusal, and then nothing is published. May be
  // called before publish() returns.
  using Answered = std::function<void(int error)>;
  // An error, with a sentence: nothing is published, and nobody is called. Without `answered` a drive that
  // refuses is asked again and again.
  nvsock::Result<void> publish(const Publication& what, Answered answered);

  // Nothing listens there any more, and its connections are reset. One that has no answer yet is answered
  // with `error`. False: nothing is published there.
  bool unpublish(const nvsock::Endpoint& inside, int error);

  // Everything ends, as by unpublish().
  void end();

  // What is published at an address inside, or what a stream came through; null: nothing.
  const Publication* find(const nvsock::Endpoint& inside) const;
  const Publication* find(uint64_t stream) const;
  // MOUNT/published, by address inside; of one user's, or all.
  std::vector<PublicationReport> report(std::optional<uid_t> only = {}) const;

 private:
  class Port;

  asio::io_context& loop_;
  nvsock::Device& device_;
  spdlog::logger& log_;
  nvsock::BufferPool blocks_;
  std::map<std::string, std::shared_ptr<Port>> ports_;  // by the address inside
};

}  // namespace csdfs
