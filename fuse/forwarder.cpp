#include "fuse/forwarder.hpp"

#include <cerrno>
#include <utility>

#include "fuse/log.hpp"

namespace csdfs {

using nvsock::Error;
using nvsock::Forward;
using nvsock::Result;

Forwarder::Forwarder(asio::io_context& loop, nvsock::Device& device, spdlog::logger& log)
    : loop_(loop),
      device_(device),
      log_(log),
      blocks_(nvsock::StreamSplice::block_size, Forward::kept_blocks) {}

Forwarder::~Forwarder() = default;

Result<Forwarder::Added> Forwarder::add(std::vector<nvsock::ForwardSpec> specs, const Options& options) {
  Added result;
  std::vector<std::unique_ptr<Forward>> added;
  std::vector<std::pair<Forward*, nvsock::Endpoint>> rebound;
  for (nvsock::ForwardSpec& spec : specs) {
    if (const auto there = forwards_.find(spec.name); there != forwards_.end()) {
      if (!options.rebind)
        return Error{EADDRINUSE, spec.name + " leads to " + there->second->inside().text() + " already"};
      result.names.push_back(there->first);
      result.listening += there->second->listening() + "\n";
      rebound.emplace_back(there->second.get(), std::move(spec.inside));
      continue;
    }
    if (forwards_.size() + added.size() >= nvsock::max_forwards) {
      return Error{ENFILE, "cannot forward " + spec.name + ": there are " +
                               std::to_string(nvsock::max_forwards) + " forwards, remove one"};
    }
    auto forward = Forward::open(loop_, blocks_, std::move(spec),
                                 [this](const nvsock::Endpoint& where, nvsock::StreamObserver* observer) {
                                   return device_.connect(where, observer);
                                 },
                                 {.most_connections = options.most_connections, .log = library_log(log_)});
    if (!forward) return forward.error();
    result.names.push_back((*forward)->name());
    result.listening += (*forward)->listening() + "\n";
    added.push_back(std::move(*forward));
  }
  for (auto& [forward, inside] : rebound) forward->lead_to(std::move(inside));
  for (auto& forward : added) {
    log_.info("forward {}: {} inside the drive is reached by {}", forward->name(), forward->inside().text(),
              forward->listening());
    forwards_[forward->name()] = std::move(forward);
  }
  return result;
}

bool Forwarder::remove(std::string_view name) {
  const auto found = forwards_.find(name);
  if (found == forwards_.end()) return false;
  log_.info("forward {}: ended", name);
  forwards_.erase(found);
  return true;
}

void Forwarder::end() {
  forwards_.clear();
}

const std::string* Forwarder::client_of(uint64_t stream) const {
  for (const auto& [name, forward] : forwards_) {
    if (const std::string* const client = forward->client_of(stream)) return client;
  }
  return nullptr;
}

std::vector<ForwardReport> Forwarder::report() const {
  std::vector<ForwardReport> reports;
  for (const auto& [name, forward] : forwards_) {
    reports.push_back({.name = name,
                       .listening = forward->listening(),
                       .inside = forward->inside().text(),
                       .counters = forward->counters()});
  }
  return reports;
}

}  // namespace csdfs
