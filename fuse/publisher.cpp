#include "fuse/publisher.hpp"

#include <cstring>
#include <utility>

#include "libnvsock/base/quoted.hpp"

namespace csdfs {

using nvsock::Endpoint;
using nvsock::Error;
using nvsock::Listener;
using nvsock::Result;
using nvsock::StreamSplice;

namespace {

// Blocks kept for reuse, 1 MiB.
constexpr size_t kept_blocks = 16;

constexpr uint32_t backlog = nvsock::max_backlog;

Result<Endpoint> only_address(Result<Endpoint> parsed) {
  if (!parsed || parsed->kind != Endpoint::Kind::name) return parsed;
  return Error{EINVAL, nvsock::quoted(parsed->host) + " is a name; give an address"};
}

}  // namespace

Result<Endpoint> parse_inside(std::string_view text) {
  if (text.find(':') != std::string_view::npos) return only_address(nvsock::parse_endpoint(text));
  const Result<uint16_t> port = nvsock::parse_port(text);
  if (!port) return port.error();
  return Endpoint{.kind = Endpoint::Kind::ipv4, .host = "127.0.0.1", .port = *port};
}

Result<Publication> parse_publication(std::string_view inside, std::string_view service) {
  Result<Endpoint> from = parse_inside(inside);
  if (!from) return from.error();
  Result<Endpoint> to = only_address(nvsock::parse_endpoint(service));
  if (!to) return to.error();
  return Publication{.inside = std::move(*from), .service = std::move(*to)};
}

class Publisher::Port final : public nvsock::ListenerObserver {
 public:
  Port(Publisher& publisher, const Publication& what, Answered answered)
      : publisher_(publisher), what_(what), answered_(std::move(answered)) {}

  // Before it is destroyed.
  void end(int error) {
    answer(error);
    listener_.reset();
    for (auto& [id, splice] : std::exchange(connections_, {})) splice->abort();
  }

  void hold(nvsock::ListenerHandle listener) { listener_ = std::move(listener); }
  bool carries(uint64_t stream) const { return connections_.contains(stream); }
  const Publication& what() const { return what_; }

  PublicationReport report() const {
    PublicationReport report{.inside = what_.inside.text(),
                             .service = what_.service.text(),
                             .connections = connections_.size(),
                             .accepted = accepted_,
                             .failed = failed_,
                             .to_drive = to_drive_,
                             .from_drive = from_drive_,
                             .listening = listening_,
                             .error = error_};
    for (const auto& [id, splice] : connections_) {
      report.to_drive += splice->stream().bytes_sent();
      report.from_drive += splice->stream().bytes_received();
    }
    return report;
  }

 private:
  void answer(int error) {
    if (const Answered answered = std::exchange(answered_, {})) answered(error);
  }

  void on_listening(Listener&, const sockaddr_storage&) override {
    listening_ = true;
    error_ = 0;
    publisher_.log_.info("{} is published inside the drive at {}", what_.service.text(), what_.inside.text());
    answer(0);
  }

  void on_listen_failed(Listener&, const Error& error) override {
    listening_ = false;
    const bool news = std::exchange(error_, error.code) != error.code;
    if (news) publisher_.log_.warn("{}", error.text);
    if (!answered_) return;
    const auto self = publisher_.ports_.extract(what_.inside.text()).mapped();
    end(error.code);
  }

  void on_accepted(Listener&, nvsock::StreamHandle& stream) override {
    ++accepted_;
    if (connections_.size() >= most_connections) {
      ++failed_;
      if (!std::exchange(full_, true)) {
        publisher_.log_.warn("{} connections to {} inside the drive are open: further ones are reset",
                             most_connections, what_.inside.text());
      }
      return;
    }
    const uint64_t id = stream->id();
    publisher_.log_.debug("connection {} from {} to {} inside the drive", id, stream->peer().text(),
                          what_.inside.text());
    const auto splice = std::make_shared<StreamSplice>(
        publisher_.loop_, publisher_.blocks_, std::move(stream),
        [this](StreamSplice& ended, int error) { connection_ended(ended, error); });
    connections_.emplace(id, splice);
    splice->connect(what_.service);
  }

  void connection_ended(StreamSplice& splice, int error) {
    const nvsock::Stream& stream = splice.stream();
    from_drive_ += stream.bytes_received();
    to_drive_ += stream.bytes_sent();
    if (error != 0) {
      ++failed_;
      publisher_.log_.info("the connection of {} inside the drive to {} ended: {}", stream.peer().text(),
                           what_.service.text(), std::strerror(error));
    }
    full_ = false;
    connections_.erase(stream.id());
  }

  Publisher& publisher_;
  const Publication what_;
  Answered answered_;
  nvsock::ListenerHandle listener_;
  bool listening_ = false;
  int error_ = 0;      // why it does not listen
  bool full_ = false;  // said so
  uint64_t accepted_ = 0;
  uint64_t failed_ = 0;
  uint64_t from_drive_ = 0;  // of connections that ended, bytes
  uint64_t to_drive_ = 0;
  std::map<uint64_t, std::shared_ptr<StreamSplice>> connections_;  // by stream
};

Publisher::Publisher(asio::io_context& loop, nvsock::Device& device, spdlog::logger& log)
    : loop_(loop), device_(device), log_(log), blocks_(StreamSplice::block_size, kept_blocks) {}

Publisher::~Publisher() {
  end();
}

Result<void> Publisher::publish(const Publication& what, Answered answered) {
  const std::string key = what.inside.text();
  if (ports_.contains(key)) return Error{EADDRINUSE, key + " inside the drive is published already"};
  if (ports_.size() == most_ports) {
    return Error{ENFILE, "cannot publish " + key + ": " + std::to_string(most_ports) +
                             " ports are published already, unpublish one"};
  }
  const auto port =
      ports_.emplace(key, std::make_shared<Port>(*this, what, std::move(answered))).first->second;
  auto listener = device_.listen(what.inside, backlog, port.get());
  if (!listener) {
    ports_.erase(key);
    return listener.error();
  }
  // Gone again if the drive refused meanwhile.
  if (ports_.contains(key)) port->hold(std::move(*listener));
  return {};
}

bool Publisher::unpublish(const Endpoint& inside, int error) {
  const auto found = ports_.extract(inside.text());
  if (found.empty()) return false;
  Port& port = *found.mapped();
  port.end(error);  // `inside` may belong to whoever was answered, and be gone
  log_.info("{} inside the drive is no longer published", port.what().inside.text());
  return true;
}

void Publisher::end() {
  for (const auto& [key, port] : std::exchange(ports_, {})) port->end(ENODEV);
}

const Publication* Publisher::find(const Endpoint& inside) const {
  const auto found = ports_.find(inside.text());
  return found == ports_.end() ? nullptr : &found->second->what();
}

const Publication* Publisher::find(uint64_t stream) const {
  for (const auto& [key, port] : ports_) {
    if (port->carries(stream)) return &port->what();
  }
  return nullptr;
}

std::vector<PublicationReport> Publisher::report(std::optional<uid_t> only) const {
  std::vector<PublicationReport> reports;
  for (const auto& [key, port] : ports_) {
    if (!only || port->what().owner == *only) reports.push_back(port->report());
  }
  return reports;
}

}  // namespace csdfs
