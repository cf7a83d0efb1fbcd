// A session of the second generation on the host: batches that arrive exactly once, whatever becomes of
// single commands. docs/relay-protocol.md sections 3, 5 and 6.
//
// Theory of operation. A few slots send (`tx`), a few receive (`rx`); a slot is a command, its buffer and a
// sequence number. What a slot's command did is known only from a successful completion. Any other outcome
// makes the link suspect: nothing new is submitted, the capability page is asked for until it comes, and
// then either the session is resumed and every slot simply tries again with the same sequence and the same
// bytes, or the drive has lost its state and the owner is told. Commands still with the drive meanwhile are
// left alone; whenever they complete, they count.
//
// Threads: event loop only. No call blocks. Only the owner calls in, and the commands of the port.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libnvsock/base/buffer.hpp"
#include "libnvsock/base/clock.hpp"
#include "libnvsock/nvme/command_port.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock {

class SessionV2 {
 public:
  // Of the 16 commands that may be in flight on a controller.
  static constexpr size_t max_tx = 4;
  static constexpr size_t max_rx = 4;

  // Payload of one stream in one batch, to be told when the drive has it.
  struct Sent {
    uint64_t stream;  // its id, not its number, which may be another one's by then
    uint32_t flow;    // of a datagram stream: which of its flows
    uint32_t bytes;
    uint32_t overhead = 0;  // credit of datagrams beyond their bytes
  };

  class Owner {
   public:
    // Puts what waits to be sent into the batch, as much as fits; nothing: leaves it empty.
    virtual void fill(relay_v2::BatchWriter& batch, std::vector<Sent>& sent) = 0;
    virtual void on_sent(const Sent& sent) = 0;
    // The drive has taken every batch up to this one. Before the frames of the batch that tells it.
    virtual void on_taken(uint64_t batch) = 0;
    // One frame, in order. Its payload lies in `buffer` and may be kept with it. False: the frame breaks a
    // rule, and the session ends.
    virtual bool on_frame(const relay_v2::Frame& frame, const BufferRef& buffer) = 0;
    // Every stream ends with `error`. Later the session may be back, empty.
    virtual void on_session_lost(int error) = 0;
    virtual void on_session_live() = 0;
    // The number of commands submitted grew by one, or one completed.
    virtual void on_command(bool submitted) = 0;
    virtual void on_link_message(const std::string& text) = 0;

   protected:
    ~Owner() = default;
  };

  // `key` is random; a further session takes the same, counted up: as unknown to everybody else.
  SessionV2(Clock& clock, CommandPort& port, const relay_v2::Capabilities& capabilities,
            const relay_v2::SessionKey& key, Owner& owner);
  ~SessionV2();
  SessionV2(const SessionV2&) = delete;
  SessionV2& operator=(const SessionV2&) = delete;

  void start();  // attaches; the owner is told
  // Sends what the owner has and keeps receives waiting. Cheap when there is nothing to do.
  void pump();
  // Ends the session at the drive, once it has every batch that was made; nobody is told. The last call.
  void detach();

  bool live() const { return link_ == Link::live; }
  bool out_of_reach() const { return outage_told_; }      // silent for longer than the lease
  uint64_t batches_sent() const { return next_tx_ - 1; }  // with the one that is being made
  uint64_t batches_received() const { return next_rx_ - 1; }
  std::string_view link_name() const;
  unsigned resumed() const { return resumed_; }
  unsigned lost() const { return lost_; }
  // True when the drive has confirmed every batch.
  bool all_sent() const;
  // The drive was told by detach(), or cannot be told now.
  bool may_end() const { return link_ == Link::down ? !control_in_flight_ : link_ != Link::live; }
  // What was sent, and may not have arrived.
  void for_each_unconfirmed(const std::function<void(const Sent&)>& visit) const;
  // True when no command is with the drive.
  bool quiet() const { return in_flight_ == 0; }

 private:
  // In every one of them, commands submitted before may still be with the drive, and count when they
  // complete.
  enum class Link : uint8_t {
    // By the constructor, and by detach() once everything is sent, for good. Nothing is submitted.
    down,
    // By attach(), from start() or when the drive was heard of again. control_ is an attach, which resumes
    // the session if resumable_; nothing else is submitted.
    attaching,
    // By on_attached(). The drive knows key_; tx and rx flow.
    live,
    // By suspect() and lose(). control_ asks for capabilities, or retry_ waits to ask again, and nothing else
    // is submitted. After lose() key_ is another one and every slot empty or with the drive.
    probing,
  };

  struct Slot;
  struct SlotCommand : Command {
    SessionV2* session = nullptr;
    void (SessionV2::*completed)(SlotCommand&) = nullptr;
    Slot* slot = nullptr;
  };
  struct Slot {
    enum class State : uint8_t {
      // The command and its buffer are ours, and mean nothing.
      free,
      // Has a sequence, and for tx a batch, which must not change any more: it may have been to the drive
      // before. To be submitted when the link is live.
      waiting,
      // The drive has the command and writes or reads the buffer. With sequence 0 it is of a session that was
      // lost: its completion frees the slot and does nothing else.
      in_flight,
      // rx, by on_rx(): the batch is here, older ones are not. It is not asked for again.
      arrived,
    };
    SlotCommand command;
    State state = State::free;
    uint64_t sequence = 0;
    BufferRef buffer;
    uint32_t bytes = 0;        // of the batch
    std::vector<Sent> sent;    // tx
    Clock::TimePoint asked{};  // rx: when it was submitted
  };

  void submit(SlotCommand& command);
  void detach_if_sent();
  void submit_control(const relay_v2::Call& call, uint32_t bytes);
  void attach();
  void on_control(SlotCommand& command);
  void on_capabilities(const Completion& completion);
  void on_attached(const Completion& completion);
  void on_tx(SlotCommand& command);
  void on_rx(SlotCommand& command);
  // True if the completion is a success; else the link is made suspect, or the session lost.
  bool settled(const Completion& completion);
  void suspect(const Completion& completion);
  void probe_later();
  void lose(int error, const char* why);
  void on_progress();
  void on_empty(Slot& slot);
  void deliver_arrived();
  bool deliver(Slot& slot);
  bool send_waiting();
  uint64_t oldest_unconfirmed() const;  // of the batches made; the next one if there is none
  Slot* oldest_waiting();               // null: none is to be submitted
  void submit_tx(Slot& slot);
  bool fetch();
  uint32_t wait_ms() const;

  Clock& clock_;
  CommandPort& port_;
  relay_v2::Capabilities capabilities_;
  relay_v2::SessionKey key_;
  Owner& owner_;
  BufferPool batches_;
  std::array<Slot, max_tx> tx_;
  std::array<Slot, max_rx> rx_;
  SlotCommand control_;
  BufferRef control_page_;
  std::unique_ptr<Clock::Timer> retry_;
  std::unique_ptr<Clock::Timer> rest_;
  Link link_ = Link::down;
  bool control_in_flight_ = false;
  bool detaching_ = false;                       // detach is sent when no tx is outstanding
  bool resumable_ = false;                       // the drive has had this session
  bool outage_told_ = false;                     // the lease ran out while the drive was silent
  bool doubt_told_ = false, loss_told_ = false;  // since the last progress
  bool pumping_ = false;
  uint64_t next_tx_ = 1;  // of the next batch to be made
  uint64_t taken_ = 0;    // of ours, the last that the drive has taken, as far as it told
  uint64_t next_rx_ = 1;  // the oldest the host does not have
  size_t rx_wanted_ = 1;  // receives to keep in flight: more while batches come full
  unsigned in_flight_ = 0;
  unsigned resumed_ = 0, lost_ = 0;
  unsigned hasty_ = 0;        // empty answers in a row that did not wait as asked
  bool resting_ = false;      // nothing is asked for, because of those; rest_ runs
  Clock::TimePoint heard_{};  // the drive answered last, or was last believed to have a command
  Clock::Duration back_off_{};
};

}  // namespace nvsock
