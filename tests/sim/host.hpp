// A host of a run: csdfs's end with its programs, the way to the drive with what goes wrong there, and what
// must come of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "libnvsock/host/dialect_v2.hpp"
#include "tests/sim/client.hpp"
#include "tests/sim/datagrams.hpp"
#include "tests/sim/port.hpp"

namespace nvsock::sim {

inline constexpr auto faults_end = std::chrono::seconds(20);

// What the hosts of a run share; outlives them.
struct Site {
  VirtualClock& clock;
  Story& story;
  const csd::SessionTableOptions& drive_options;
  SimServices& services;
  SimDrive& drive;
};

class SimHost final : private ListenerObserver, private Conditions {
 public:
  // Of a run's hosts the first, 0, also listens in the drive and has flows of datagrams.
  SimHost(const Site& site, Random random, unsigned index);

  // Every program is done, and nothing is left of what they opened.
  bool done() const;
  void tell_what_is_not_done();
  void end_faults();
  // Datagrams are accounted for, and nobody listens any more. REQUIRES: done().
  void finish();
  void detach() { dialect_->detach(); }
  size_t in_flight() const { return port_.in_flight(); }
  // At the very end. `finished`: all that was waited for has come.
  void check(bool finished);

  const csd::HostName& name() const { return controller_->name(); }
  uint64_t handle() const { return controller_->handle(); }  // of the session made last; 0: none
  uint64_t commands() const { return port_.commands(); }
  uint64_t bytes() const { return bytes_; }
  unsigned streams() const { return streams_; }
  unsigned hard_faults() const;

 private:
  void start_dialect();
  void add_clients();
  void add_client(const Plan& plan, const Script& script);
  void add_programs();
  void add_flows(Random random);
  void account_for_datagrams();
  void add_hard_faults();
  void hard_fault(unsigned kind);
  void on_drive_restarted();
  void expect_given_up(Clock::Duration outage);
  void settle_later();
  Faults choose_faults();

  void on_listening(Listener&, const sockaddr_storage&) override;
  void on_listen_failed(Listener&, const Error& error) override;
  void on_accepted(Listener&, StreamHandle& stream) override;
  bool link_failed(Clock::TimePoint opened) const override;
  bool explains(const Told& told) const override;
  bool explains_refusal(int error) const override;
  bool hopeless(int) const override { return false; }

  uint16_t port_of(size_t client) const { return static_cast<uint16_t>(first_port_ + client); }

  Random random_;
  VirtualClock& clock_;
  Story& story_;
  const csd::SessionTableOptions& drive_options_;
  SimServices& services_;
  SimDrive& drive_;
  const uint16_t first_port_;  // of its services
  Referee referee_;
  SimController* const controller_;  // the port's
  SimPort port_;
  BufferPool buffers_;
  std::unique_ptr<DialectV2> dialect_;
  std::vector<std::unique_ptr<Client>> clients_;
  ListenerHandle listener_;
  std::vector<std::unique_ptr<FlowClient>> flows_;
  uint32_t host_window_ = 0;
  uint64_t bytes_ = 0;
  unsigned streams_ = 0;
  unsigned sessions_ended_ = 0;      // behind its back
  unsigned restarts_by_others_ = 0;  // of the drive
  bool restarting_ = false;
  bool calm_ = false;
  Clock::TimePoint loss_settled_ = Clock::TimePoint::min();
};

}  // namespace nvsock::sim
