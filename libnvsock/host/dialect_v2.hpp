// The second generation on the host: any number of streams over one session. docs/relay-protocol.md
// section 7.
//
// Streams that have something to send stand in one line; each batch takes from them in turn, a bounded part
// of each, so that no stream waits for another one's bulk. What a batch carries is decided when a command is
// free to take it: under load many small writes share one command, when idle each leaves at once.
//
// Between the session and the streams this is the post office: it gives numbers, keeps the line, hands each
// frame to whom it is addressed, and tells programs of a batch when all of it was delivered. What a frame
// means is known to stream_v2 and listener_v2, which know the dialect as their owner only.
//
// Threads: event loop only. No call blocks.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "libnvsock/host/dialect.hpp"
#include "libnvsock/host/listener_v2.hpp"
#include "libnvsock/host/session_v2.hpp"
#include "libnvsock/host/stream_v2.hpp"
#include "libnvsock/relay/stream_numbers.hpp"

namespace nvsock {

struct DialectV2Options {
  std::chrono::seconds connect_timeout{130};
  std::chrono::seconds drain_timeout{30};
  // Bytes a stream may be ahead of its reader: at first, and when the reader has kept up.
  uint32_t window = 256 * 1024;
  uint32_t largest_window = 1024 * 1024;
  relay_v2::SessionKey session{};  // random
  Log log;
};

class DialectV2 final : public Dialect,
                        private SessionV2::Owner,
                        private StreamOwnerV2,
                        private ListenerOwnerV2 {
 public:
  // Attaches at once; streams may be opened before the drive has answered.
  DialectV2(Clock& clock, CommandPort& port, const relay_v2::Capabilities& capabilities,
            DialectV2Options options);
  ~DialectV2() override;

  Result<StreamHandle> connect(const Endpoint& endpoint, StreamObserver* observer) override;
  Result<ListenerHandle> listen(const Endpoint& where, uint32_t backlog, ListenerObserver* observer) override;
  bool ask_counters(std::function<void(const DriveCounters&)> told) override;
  bool drained() const override;
  void finish() override;
  bool finished() const override { return drained() && session_->may_end(); }
  Undelivered undelivered() const override;
  void give_up() override;
  std::string_view name() const override { return "v2"; }
  unsigned max_streams() const override { return max_streams_; }
  std::optional<SessionStatus> session_status() const override {
    return SessionStatus{session_->link_name(), session_->resumed(), session_->lost()};
  }
  Stream* find_stream(uint64_t id) const override;
  void for_each_stream(const std::function<void(const Stream&)>& visit) const override;
  void on_batch_end() override;

  // Ends the session at the drive; for the end of the program. Streams must be gone.
  void detach() { session_->detach(); }
  const SessionV2& session() const { return *session_; }

 private:
  // What a listener's observer is to be told when the batch ends.
  struct News {
    uint64_t listener = 0;
    unsigned attempt = 0;        // of the listener's
    uint64_t stream = 0;         // not 0: accepted
    int error = 0;               // not 0: failed
    sockaddr_storage address{};  // neither: listening, here
  };

  // --- of the session ---
  void fill_from_line(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent);
  void fill(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent) override;
  void on_sent(const SessionV2::Sent& sent) override;
  void on_taken(uint64_t batch) override { numbers_.taken(batch); }
  bool on_frame(const relay_v2::Frame& frame, const BufferRef& buffer) override;
  void on_session_lost(int error) override;
  void on_session_live() override;
  void on_command(bool submitted) override;
  void on_link_message(const std::string& text) override;

  // --- of streams and listeners ---
  void list_ready(StreamV2& stream) override;
  void list_ready(ListenerV2& listener) override;
  void send_ready() override;
  void list_changed(StreamV2& stream) override;
  void settle() override { on_batch_end(); }
  void list_listening(ListenerV2& listener, const sockaddr_storage& address) override;
  void list_failed(ListenerV2& listener, int error) override;
  uint32_t take_number() override { return numbers_.take(); }
  uint32_t take_number(StreamV2& stream) override;
  void free_number(uint32_t number) override;
  void destroy(StreamV2& stream) override;
  void destroy(ListenerV2& listener) override;

  // May one more stream or listener begin? If not, the error's sentence begins with `failed`.
  Result<void> room_for_one(const std::string& failed) const;
  StreamV2* find(uint64_t id) const;
  StreamV2* find_number(uint32_t number) const;
  ListenerV2* find_listener(uint64_t id) const;
  ListenerV2* find_listener_number(uint32_t number) const;
  uint64_t take_id() { return std::exchange(next_id_, next_id_ + 2); }
  void ask_stat();
  bool on_accepted(const relay_v2::Frame& frame);
  void tell_listeners();
  void tell_counters();
  void log(LogLevel level, const std::string& text) const {
    if (options_.log) options_.log(level, text);
  }

  CommandPort& port_;
  const DialectV2Options options_;
  const uint32_t max_streams_;
  const uint32_t features_;
  BufferPool pages_;
  const Shared shared_;
  std::unordered_map<uint64_t, std::unique_ptr<StreamV2>> streams_;  // by id
  std::vector<std::unique_ptr<ListenerV2>> listeners_;
  uint64_t next_id_ = 1;                               // odd: of streams that programs open, and of listeners
  uint64_t next_accepted_id_ = 2;                      // even
  relay_v2::StreamNumbers numbers_{1};                 // odd
  uint32_t last_accepted_ = 0;                         // even, the drive's highest number in this session
  std::unordered_map<uint32_t, StreamV2*> by_number_;  // streams that are open in this session
  unsigned freed_for_drive_ = 0;   // of the drive's numbers, since a batch told it what was taken
  std::deque<uint64_t> ready_;     // ids of streams, and of listeners, that have something to send
  std::vector<uint64_t> changed_;  // streams to tell when the batch ends
  std::vector<uint64_t> telling_;  // those being told; a member to keep its memory
  std::deque<News> news_;
  std::vector<std::function<void(const DriveCounters&)>> counters_wanted_;
  DriveCounters drive_counters_;  // that came with this batch
  bool counters_due_ = false;     // STAT waits for a batch
  bool counters_asked_ = false;   // or its answer is on the way
  bool counters_came_ = false;    // or will not come any more
  bool finishing_ = false;
  std::unique_ptr<SessionV2> session_;
};

}  // namespace nvsock
