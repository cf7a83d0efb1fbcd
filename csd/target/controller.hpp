// A controller of a subsystem: one association with one host, its admin queue and its I/O queue.
//
// Properties, admin commands, the commands of the relay protocol, which it hands to the drive's SessionTable,
// and Read, Write and Flush. The association ends, with all its connections, when that of the admin queue is
// lost, or when the host has not been heard on it for its keep-alive timeout (NVMe Base Specification 2.0,
// sections 3.3.2 and 3.9); a relay session goes on in the next one. Losing an I/O queue is no end, whatever
// section 3.3.2.1 says: Linux closes them first and then still wants to be answered. Threads: event loop
// only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "csd/base/host_name.hpp"
#include "csd/target/controller_pages.hpp"
#include "csd/target/namespace.hpp"
#include "csd/target/nvme_connection.hpp"
#include "csd/v2/session_table.hpp"

namespace nvsock::csd {

inline constexpr uint16_t max_queue_entries = 128;
inline constexpr uint16_t max_io_queues = 1;

class Controller;

class ControllerOwner {
 public:
  // The association is over. Destroys the controller: its last act.
  virtual void ended(Controller& controller) = 0;
  // A queue was disconnected; its connection is the owner's until it is closed.
  virtual void disconnected(NvmeConnection& connection) = 0;
  // May this host see the subsystem in the Discovery log page?
  virtual bool allows(std::string_view host_nqn) const = 0;

 protected:
  ~ControllerOwner() = default;
};

class Controller final : public QueueExecutor {
 public:
  // What the controllers of a subsystem share; outlives them.
  struct Surroundings {
    ControllerOwner& owner;
    Clock& clock;
    CompletionQueue& completions;
    SessionTable& sessions;
    Namespace& storage;
    const std::string& nqn;
    const Uuid& namespace_id;
    const bool tls;  // required of hosts
    const Log& log;
  };
  Controller(const Surroundings& around, uint16_t id, HostName host, bool discovery);

  uint16_t id() const { return id_; }
  const HostName& host() const { return host_; }
  bool discovery() const { return discovery_; }
  // Where its admin queue comes from. REQUIRES: it has not ended.
  const std::string& origin() const { return queues_[0]->origin(); }
  // When the last command came, on any queue.
  Clock::TimePoint used() const { return used_; }

  // Connect, of the admin queue or an I/O queue. The second returns a status; success: the queue is ours.
  void adopt_admin(NvmeConnection& connection, const nvme::Connect& connect);
  uint16_t adopt_io(NvmeConnection& connection, const nvme::Connect& connect);
  void end();

  void execute(Request& request) override;
  void closed(NvmeConnection& connection) override;

 private:
  void complete(Request& request, uint16_t status, uint32_t dw0 = 0);
  void execute_fabrics(Request& request);
  void execute_admin(Request& request);
  void execute_io(Request& request);
  void get_property(Request& request, const nvme::Property& property);
  void set_property(Request& request, const nvme::Property& property);
  void configure(uint32_t value);
  void execute_relay(Request& request);
  void identify(Request& request);
  void get_log_page(Request& request);
  void set_features(Request& request);
  void get_features(Request& request);
  void read_or_write(Request& request);
  void flush(Request& request);
  void heard(bool admin);
  void check_keep_alive();
  void forget(NvmeConnection& connection);

  const Surroundings around_;
  const uint16_t id_;
  const HostName host_;
  const bool discovery_;
  std::vector<NvmeConnection*> queues_;  // by number; null: not connected
  uint32_t configuration_ = 0;           // CC
  uint32_t status_ = 0;                  // CSTS
  uint32_t async_events_ = 0;            // feature 0Bh
  unsigned async_requests_ = 0;          // Async Event Requests that wait, for nothing
  std::chrono::milliseconds keep_alive_{0};
  Clock::TimePoint heard_;  // on the admin queue
  Clock::TimePoint used_;   // on any
  std::unique_ptr<Clock::Timer> timer_;
  bool ended_ = false;
};

}  // namespace nvsock::csd
