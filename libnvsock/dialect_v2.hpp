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

#include "libnvsock/dialect.hpp"
#include "libnvsock/session_v2.hpp"

namespace nvsock {

class StreamV2;

struct DialectV2Options {
  std::chrono::seconds connect_timeout{130};
  std::chrono::seconds drain_timeout{30};
  uint32_t window = 256 * 1024;   // bytes a stream may be ahead of its reader
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
  bool drained() const override { return streams_.empty() && session_->all_sent(); }
  std::string_view name() const override { return "v2"; }
  void for_each_stream(const std::function<void(const Stream&)>& visit) const override;
  void on_batch_end() override;

  // Ends the session at the drive; for the end of the program. Streams must be gone.
  void detach() { session_->detach(); }
  const SessionV2& session() const { return *session_; }

 private:
  friend class StreamV2;

  void fill(relay_v2::BatchWriter& batch, std::vector<SessionV2::Sent>& sent) override;
  void on_sent(const SessionV2::Sent& sent) override;
  bool on_frame(const relay_v2::Frame& frame, const BufferRef& buffer) override;
  void on_session_lost(int error) override;
  void on_session_live() override;
  void on_command(bool submitted) override;
  void on_link_message(const std::string& text) override;

  StreamV2* find(uint64_t number) const;
  void make_ready(StreamV2& stream);
  void changed(StreamV2& stream);
  void renumber(StreamV2& stream);
  size_t largest_datagram() const { return largest_datagram_; }
  void destroy(StreamV2& stream);
  void log(LogLevel level, const std::string& text) const {
    if (options_.log) options_.log(level, text);
  }

  Clock& clock_;
  CommandPort& port_;
  const DialectV2Options options_;
  const uint32_t max_streams_;
  const size_t largest_datagram_;  // that fits into a batch; 0: the drive carries none
  BufferPool pages_;
  std::unordered_map<uint64_t, std::unique_ptr<StreamV2>> streams_;
  uint32_t next_number_ = 1;       // odd, never used again in a session
  std::deque<uint32_t> ready_;     // streams that have something to send
  std::vector<uint32_t> changed_;  // streams to tell when the batch ends
  std::vector<uint32_t> telling_;  // those being told; a member to keep its memory
  std::unique_ptr<SessionV2> session_;
};

}  // namespace nvsock
