// A CSD on the network: one NVM subsystem with its controllers, and the discovery subsystem that names it.
//
// Several hosts may be connected at once, each with a controller of its own; all of them share the drive's
// relay sessions, which outlive controllers, and the namespace.
//
// Limits: 32 controllers and 16 relay sessions, and 8 and 4 more that only hosts may take which are known:
// listed in the options or, where none are, with a session (or, for a controller, a controller) already:
// those who come back find a place. A host has at most 8 of each; one origin 16 controllers, since a host may
// call itself what it likes, but those of listed hosts count only for the host. A controller whose host has
// sent nothing for 10 minutes is ended when another host needs its place: only one that asked for no
// keep-alive, or for a rare one, gets there. As long as there is room nothing is ended, because a host may be
// idle for as long as it likes.
//
// A session is the host's that attached it, by NQN and host identifier (csd/v2/session_table.hpp). Without
// TLS hosts are who they say they are. Threads: event loop only.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "csd/sockets/service.hpp"
#include "csd/target/controller.hpp"
#include "csd/target/namespace.hpp"
#include "csd/target/nvme_connection.hpp"
#include "csd/v2/session_table.hpp"
#include "libnvsock/nvme/tls_transport.hpp"

namespace nvsock::csd {

struct SubsystemOptions {
  std::string nqn;                  // 1 to 223 bytes
  std::vector<std::string> hosts;   // NQNs of those that may connect; none: all
  std::chrono::seconds lease{30};   // of the relay sessions, at least 1 s
  std::unique_ptr<TlsContext> tls;  // null: bytes go as they are; else nobody gets in without the key
  Log log;
};

class Subsystem final : private QueueExecutor, private CompletionQueue, private ControllerOwner {
 public:
  // All must outlive the subsystem.
  Subsystem(asio::io_context& loop, Clock& clock, ServiceFactory& services, Namespace& storage,
            SubsystemOptions options);
  ~Subsystem();

  // Takes over a non-blocking socket that a host has connected.
  std::shared_ptr<NvmeConnection> add(int fd, Peer peer);

  size_t controllers() const { return controllers_.size(); }

  // The target comes to an end: services see resets, but for what hosts had closed in good order.
  void end_sessions() { sessions_.end_sessions(); }
  Undelivered undelivered() const { return sessions_.delivery().waiting; }

 private:
  void execute(Request& request) override;
  void closed(NvmeConnection&) override {}
  void post(Command& command) override;
  void flush() override;
  void ended(Controller& controller) override;
  void disconnected(NvmeConnection& connection) override;
  bool allows(std::string_view host_nqn) const override;

  void connect(Request& request);
  uint16_t connect_admin(Request& request, const nvme::Connect& connect, const nvme::ConnectData& data);
  uint16_t connect_io(Request& request, const nvme::Connect& connect, const nvme::ConnectData& data);
  void complete(Request& request, uint16_t status, uint32_t dw0);

  bool listed(std::string_view host_nqn) const;
  size_t sessions_of(std::string_view host_nqn) const;
  bool make_place(const NvmeConnection& connection, std::string_view host_nqn);
  bool end_idle(const std::function<bool(const Controller&)>& concerned);
  bool may_attach(const HostName& host) const;
  std::string holders(bool of_sessions) const;

  const SubsystemOptions options_;
  const Uuid namespace_id_;
  BufferPool large_;
  BufferPool small_;
  std::vector<uint8_t> staging_;
  Clock& clock_;
  SessionTable sessions_;
  const NvmeConnection::Surroundings for_connections_;
  const Controller::Surroundings for_controllers_;
  std::vector<std::unique_ptr<Controller>> controllers_;
  uint16_t last_id_ = 0;
  std::vector<std::shared_ptr<NvmeConnection>> to_flush_;
};

}  // namespace nvsock::csd
