// Watches a host and the drive from between them and knows the rules of docs/relay-protocol.md without their
// code: the order of batches, that a repeated one has the same bytes, what they tell of those that were
// taken, who may send which frame when, when a number may be used again, and credit, which is never more than
// a window may grow to.
#pragma once

#include <map>
#include <span>
#include <vector>

#include "libnvsock/relay/v2.hpp"
#include "tests/sim/story.hpp"

namespace nvsock::sim {

class Referee {
 public:
  // `drive_window`, `host_window`: the largest that each may give the other.
  Referee(Story& story, uint16_t tx_window, uint32_t drive_window)
      : story_(story), tx_window_(tx_window), drive_window_(drive_window) {}
  void set_host_window(uint32_t window) { host_window_ = window; }

  void session_made(uint64_t handle) { sessions_.try_emplace(handle); }
  void drive_restarted() { sessions_.clear(); }
  // The drive is about to execute this.
  void sees_tx(uint64_t handle, uint64_t sequence, std::span<const uint8_t> batch);
  // The drive has executed it, and tells that.
  void sees_tx_done(uint64_t handle, uint32_t next_expected);
  // The drive completed an rx with this.
  void sees_rx(uint64_t handle, uint64_t sequence, std::span<const uint8_t> batch);

 private:
  struct StreamView {
    bool datagrams = false;
    bool opened = false;
    bool host_ended = false, drive_ended = false;  // FIN or RESET
    bool host_reset = false, drive_reset = false;
    int64_t host_credit = 0, drive_credit = 0;
    uint32_t backlog = 0;                      // not 0: a listener
    uint32_t waiting = 0;                      // its streams that the host has not answered
    uint32_t accepted_by = 0;                  // not 0: not answered
    uint64_t host_batch = 0, drive_batch = 0;  // the last of each with a frame of it

    bool closed() const { return host_reset || drive_reset || (host_ended && drive_ended); }
  };
  struct Session {
    uint64_t expected = 1;
    std::map<uint64_t, std::vector<uint8_t>> held;
    std::map<uint64_t, uint64_t> host_batches;  // by sequence, a hash of the bytes
    std::map<uint64_t, uint64_t> drive_batches;
    uint64_t next_made = 1;
    std::vector<uint64_t> taken_by_drive{0};  // by the drive's batches, what each told
    std::vector<uint64_t> taken_by_host{0};   // the same of the host's
    std::map<uint32_t, StreamView> streams;
  };

  void apply(Session& session, std::span<const uint8_t> batch, uint64_t sequence, relay_v2::Batch::From from);
  void taken(Session& session, uint64_t told, relay_v2::Batch::From from);
  void host_frame(Session& session, const relay_v2::Frame& frame);
  void accepted(Session& session, const relay_v2::Frame& frame);
  void drive_frame(Session& session, const relay_v2::Frame& frame);

  Story& story_;
  const uint16_t tx_window_;
  const uint32_t drive_window_;
  uint32_t host_window_ = 0;
  std::map<uint64_t, Session> sessions_;
};

const char* name_of(relay_v2::FrameType type);

}  // namespace nvsock::sim
