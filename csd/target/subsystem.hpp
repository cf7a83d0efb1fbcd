// A CSD on the network: one NVM subsystem with its controllers, and the discovery subsystem that names it.
//
// Several hosts may be connected at once, each with a controller of its own; all of them share the drive's
// relay sessions, which outlive controllers, and the namespace. Limit: 32 controllers. Threads: event loop
// only.
#pragma once

#include <chrono>
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

  // Takes over a non-blocking socket that a host has connected. `peer` names the host in the log.
  std::shared_ptr<NvmeConnection> add(int fd, std::string peer);

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
  bool allows(std::string_view host_nqn) const override;

  void connect(Request& request);
  uint16_t connect_admin(Request& request, const nvme::Connect& connect, const nvme::ConnectData& data);
  uint16_t connect_io(Request& request, const nvme::Connect& connect, const nvme::ConnectData& data);
  void complete(Request& request, uint16_t status, uint32_t dw0);

  const SubsystemOptions options_;
  const Uuid namespace_id_;
  BufferPool large_;
  BufferPool small_;
  std::vector<uint8_t> staging_;
  SessionTable sessions_;
  const NvmeConnection::Surroundings for_connections_;
  const Controller::Surroundings for_controllers_;
  std::vector<std::unique_ptr<Controller>> controllers_;
  uint16_t last_id_ = 0;
  std::vector<std::shared_ptr<NvmeConnection>> to_flush_;
};

}  // namespace nvsock::csd
