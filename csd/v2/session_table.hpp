// The drive's end of the second-generation relay protocol (docs/relay-protocol.md; sections named are its):
// tells what the drive can do, and takes commands to the sessions they name, which are their host's own:
// those of another host do not exist for it.
//
// No sockets and no event loop here: time, services and completions come in from outside, so that a
// simulation may run it. Limits: 4 sessions, 16384 streams and listeners each. Threads: one. Never blocks.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "csd/base/completion_queue.hpp"
#include "csd/base/host_name.hpp"
#include "csd/sockets/service.hpp"
#include "csd/v2/ended_sessions.hpp"
#include "csd/v2/linger_list.hpp"
#include "libnvsock/base/buffer.hpp"
#include "libnvsock/base/clock.hpp"
#include "libnvsock/nvme/command.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock::csd {

class Session;

struct SessionTableOptions {
  relay_v2::Epoch epoch{};  // random, another one each time the drive starts
  uint32_t features = relay_v2::feature::datagrams | relay_v2::feature::ipv6 | relay_v2::feature::names |
                      relay_v2::feature::listeners;
  uint32_t max_sessions = 4;
  // May this host have one session more, as far as it is not for max_sessions to say? Null: yes.
  std::function<bool(const HostName&)> may_attach{};
  uint32_t max_streams = 16384;              // and listeners, a session
  uint32_t max_batch = relay_v2::max_batch;  // 4096..131072, a multiple of 8
  // Bytes a stream's host may be ahead of its service: at first, and when the service has kept up.
  uint32_t window = 256 * 1024;
  uint32_t largest_window = 1024 * 1024;
  uint16_t tx_window = 8;          // at least 1
  uint16_t rx_window = 8;          // 1..255
  std::chrono::seconds lease{30};  // at least 1 s
  std::chrono::milliseconds max_wait{relay_v2::max_wait_ms};
  std::chrono::milliseconds linger{30'000};  // how long closed streams may go on delivering
  // What a session's closed streams may hold before it opens no more: sockets, and bytes beside those that
  // its open streams hold already.
  size_t linger_streams = 16384;
  uint64_t linger_bytes = 64 * 1024 * 1024;
  // A flow of datagrams that carried none for so long ends, at the latest after a fifth more. What RFC 4787
  // (REQ-5) recommends to address translators, whose flows programs expect to live as long.
  std::chrono::milliseconds flow_quiet{300'000};
  std::string vendor = "nvsock csd";  // at most 71 bytes
};

// What a drive with these options tells on its capability page. `vendor` points into the options.
relay_v2::Capabilities capabilities_of(const SessionTableOptions& options);

class SessionTable {
 public:
  // All must outlive the table. Destroying it forgets the commands that wait: nothing completes them.
  SessionTable(Clock& clock, ServiceFactory& services, CompletionQueue& completions,
               SessionTableOptions options);
  ~SessionTable();
  SessionTable(const SessionTable&) = delete;
  SessionTable& operator=(const SessionTable&) = delete;

  // Is it one of the commands of section 2? Others belong to someone else.
  static bool handles(const Command& command) { return relay_v2::is_call(command); }
  // A command of this host. Completes now or later through completions.post(); the caller flushes. What
  // completes later flushes by itself. REQUIRES: handles(command).
  void execute(Command& command, const HostName& host = {});

  // The controller was reset: commands that wait are forgotten and never completed; sessions stay (section
  // 6).
  void controller_reset();
  // The same for the commands that `whose` picks: those of one host of several.
  void forget_commands(const std::function<bool(const Command&)>& whose);

  size_t sessions() const { return sessions_.size(); }
  // The hosts that have sessions, as often as each has one.
  void for_each_host(const std::function<void(const HostName&)>& visit) const;
  uint64_t datagrams_dropped() const;  // by the sessions there are
  Delivery delivery() const;
  // The drive comes to an end: all sessions are over, as when their hosts had died. What hosts closed in good
  // order before still lingers.
  void end_sessions();

 private:
  void capabilities(Command& command);
  void attach(Command& command, const HostName& host);
  void detach(Command& command, const HostName& host);
  void tx(Command& command, const HostName& host);
  void rx(Command& command, const HostName& host);
  Session* find(const HostName& host, uint64_t handle) const;  // null: this host has none
  void erase(Session& session);
  void arm_lease();
  void check_leases();
  void complete(Command& command, uint16_t status, uint32_t dw0 = 0);

  Clock& clock_;
  ServiceFactory& services_;
  CompletionQueue& completions_;
  const SessionTableOptions options_;
  BufferPool large_;  // for batches kept or held; shared by all sessions
  BufferPool small_;
  LingerList lingering_;
  std::vector<std::unique_ptr<Session>> sessions_;
  uint64_t sessions_made_ = 0;
  EndedSessions ended_;
  std::unique_ptr<Clock::Timer> lease_timer_;  // one for the session that may end first
  bool lease_armed_ = false;
};

}  // namespace nvsock::csd
