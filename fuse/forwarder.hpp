// Ports of the host that lead into the drive (libnvsock/forward), as the mount shows and changes them.
// Threads: event loop only. Nothing blocks.
#pragma once

#include <spdlog/logger.h>

#include <asio/io_context.hpp>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fuse/status_report.hpp"
#include "libnvsock/device.hpp"
#include "libnvsock/forward/forward.hpp"

namespace csdfs {

class Forwarder {
 public:
  Forwarder(asio::io_context& loop, nvsock::Device& device, spdlog::logger& log);
  ~Forwarder();

  struct Options {
    bool rebind =
        true;  // what is there already leads to the new place from its next connection on; or EADDRINUSE
    size_t most_connections = nvsock::Forward::default_connections;  // of each
  };
  struct Added {
    std::vector<std::string> names;
    std::string listening;  // a line each
  };
  // All of them, or none and an error with a sentence.
  nvsock::Result<Added> add(std::vector<nvsock::ForwardSpec> specs, const Options& options);

  // Nothing listens there any more, and connections made so are reset. By name (ForwardSpec). False: there is
  // none.
  bool remove(std::string_view name);

  // Everything ends, as by remove().
  void end();

  // Who is at the host's end of a stream; null: it came through no forward.
  const std::string* client_of(uint64_t stream) const;
  std::vector<ForwardReport> report() const;  // MOUNT/forwards, by name

 private:
  asio::io_context& loop_;
  nvsock::Device& device_;
  spdlog::logger& log_;
  nvsock::BufferPool blocks_;
  std::map<std::string, std::unique_ptr<nvsock::Forward>, std::less<>> forwards_;  // by name
};

}  // namespace csdfs
