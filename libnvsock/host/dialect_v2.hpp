// The second generation on the host: any number of streams over one session. docs/relay-protocol.md
// section 7.
//
// Streams that have something to send stand in one line; each batch takes from them in turn, a bounded part
// of each, so that no stream waits for another one's bulk. What a batch carries is decided when a command is
// free to take it: under load many small writes share one command, when idle each leaves at once.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "libnvsock/host/dialect.hpp"
#include "libnvsock/host/session_v2.hpp"

namespace nvsock {

class ListenerV2;
class StreamV2;

// What the drive is asked for; any for a name.
relay_v2::Family family_of(const Endpoint& where);

struct DialectV2Options {
  std::chrono::seconds connect_timeout{130};
  std::chrono::seconds drain_timeout{30};
  // Bytes a stream may be ahead of its reader: at first, and when the reader has kept up.
  uint32_t window = 256 * 1024;
  uint32_t largest_window = 1024 * 1024;
  relay_v2::SessionId session{};  // random
  Log log;
};

class DialectV2 final : public Dialect, private SessionV2::Owner {
 public:
  // Attaches at once; streams may be opened before the drive has answered.
  DialectV2(Clock& clock, CommandPort& port, const relay_v2::Capabilities& capabilities,
            DialectV2Options options);
  ~DialectV2() override;

  Result<StreamHandle> connect(const Endpoint& endpoint, StreamObserver* observer) override;
  Result<ListenerHandle> listen(const Endpoint& where, uint32_t backlog, ListenerObserver* observer) override;
  bool ask_counters(std::function<void(const DriveCounters&)> told) override;
  bool drained() const override;
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
  friend class ListenerV2;
  friend class StreamV2;

  // What a listener's observer is to be told when the batch ends.
  struct News {
    uint32_t listener = 0;
    uint64_t stream = 0;         // not 0: accepted
    int error = 0;               // not 0: failed
    sockaddr_storage address{};  // neither: listening, here
  };

  void fill(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent) override;
  void on_sent(const SessionV2::Sent& sent) override;
  bool on_frame(const relay_v2::Frame& frame, const BufferRef& buffer) override;
  void on_session_lost(int error) override;
  void on_session_live() override;
  void on_command(bool submitted) override;
  void on_link_message(const std::string& text) override;

  // May one more stream or listener begin? If not, the error's sentence begins with `failed`.
  Result<bool> room_for_one(const std::string& failed) const;
  StreamV2* find(uint64_t id) const;
  StreamV2* find_number(uint32_t number) const { return find(id_of(number)); }
  // Numbers of the drive's start over with each session, but streams of an old one may still be held.
  uint64_t id_of(uint32_t number) const { return number % 2 == 1 ? number : accepted_before_ + number; }
  ListenerV2* find_listener(uint32_t number) const;
  bool on_accepted(const relay_v2::Frame& frame);
  void tell_listeners();
  void tell_counters();
  void make_ready(StreamV2& stream);
  void changed(StreamV2& stream);
  void renumber(StreamV2& stream);
  size_t largest_datagram() const { return largest_datagram_; }
  void destroy(StreamV2& stream);
  void destroy(ListenerV2& listener);
  void log(LogLevel level, const std::string& text) const {
    if (options_.log) options_.log(level, text);
  }

  Clock& clock_;
  CommandPort& port_;
  const DialectV2Options options_;
  const uint32_t max_streams_;
  const uint32_t features_;
  const size_t largest_datagram_;  // that fits into a batch; 0: the drive carries none
  BufferPool pages_;
  std::unordered_map<uint64_t, std::unique_ptr<StreamV2>> streams_;  // by key
  std::vector<std::unique_ptr<ListenerV2>> listeners_;
  uint32_t next_number_ = 1;       // odd, never used again in a session
  uint32_t last_accepted_ = 0;     // even, the drive's last number in this session
  uint64_t accepted_before_ = 0;   // the highest id of a stream accepted in earlier sessions
  std::deque<uint64_t> ready_;     // ids of streams, and of listeners, that have something to send
  std::vector<uint64_t> changed_;  // streams to tell when the batch ends
  std::vector<uint64_t> telling_;  // those being told; a member to keep its memory
  std::deque<News> news_;
  std::vector<std::function<void(const DriveCounters&)>> counters_wanted_;
  DriveCounters drive_counters_;  // that came with this batch
  bool counters_due_ = false;     // STAT waits for a batch
  bool counters_came_ = false;    // or will not come any more
  std::unique_ptr<SessionV2> session_;
};

}  // namespace nvsock
