// What a session carries (docs/relay-protocol.md, section 7): streams, which join the host and one service,
// and listeners.
//
// Bytes from the host go to the service at once, or into a queue of at most the window that the stream
// granted. Bytes from the service stay there until the session makes a batch; they are read straight into
// it. Frames other than data are not queued but remembered as flags, so that nothing here grows.
// Threads: event loop only.
#pragma once

#include <memory>
#include <vector>

#include "csd/base/byte_queue.hpp"
#include "csd/sockets/service.hpp"
#include "libnvsock/base/clock.hpp"
#include "libnvsock/base/list.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock::csd {

class SessionStream;
struct LingerAccount;

// A number of the session: a stream, a listener, or one that was refused and is yet to be told so.
class Channel : public Link<Channel> {
 public:
  explicit Channel(uint32_t number) : number_(number) {}
  virtual ~Channel() = default;

  uint32_t number() const { return number_; }
  virtual SessionStream* as_stream() { return nullptr; }
  virtual bool is_refusal() const { return false; }
  // Of a listener: streams that it has accepted and the host was not told of.
  virtual std::vector<SessionStream*> untold() const { return {}; }

  // Takes a frame from the host, any but OPEN, LISTEN, STAT and RESET. False: it breaks a rule of section 7.
  virtual bool take(const relay_v2::Frame& frame) = 0;
  // Writes the control frames that are due. False: there is no room for all; call again with the next batch.
  virtual bool write_control(relay_v2::BatchWriter& batch) = 0;
  // Nothing is left to do: the owner destroys it.
  virtual bool done() const = 0;

 private:
  const uint32_t number_;
};

class StreamOwner {
 public:
  virtual void list_control(Channel& channel) = 0;     // it has control frames to write
  virtual void list_ready(SessionStream& stream) = 0;  // its service has bytes, and there is credit for them
  // After an event from a service. Sends what is due and may destroy the channel: its last act.
  virtual void settled(Channel& channel) = 0;
  virtual relay_v2::Counters& counters() = 0;

 protected:
  ~StreamOwner() = default;
};

class SessionListener;

class SessionStream final : public Channel, public Link<SessionStream>, public Service::Observer {
 public:
  struct Terms {
    uint32_t window;          // granted to the host
    uint32_t largest_window;  // as far as it may grow
    uint32_t credit;          // granted by the host
    bool datagram;
  };
  SessionStream(StreamOwner& owner, uint32_t number, const Terms& terms);

  // One of the two, once. The first waits for on_connected().
  void connecting(std::unique_ptr<Service> service);
  void accepted(std::unique_ptr<Service> service, SessionListener& by);
  ~SessionStream() override;

  SessionStream* as_stream() override { return this; }
  bool take(const relay_v2::Frame& frame) override;
  bool write_control(relay_v2::BatchWriter& batch) override;
  bool done() const override { return done_; }

  enum class Read { later, more, batch_full };
  // Reads from the service into the batch, about `quantum` bytes. `later`: it lists itself as ready when
  // there is more. `scratch`: max_datagram bytes, for datagrams that may not fit into the batch.
  Read read_into(relay_v2::BatchWriter& batch, size_t quantum, std::span<uint8_t> scratch);

  // The host is through with the stream, in good order: nothing is read any more. True: bytes are left for
  // the service, and `owner` is told when it took them. False: the caller destroys the stream, and the
  // service sees the end. A stream that is destroyed otherwise is a reset for its service.
  bool linger(StreamOwner& owner);

  bool is_datagram() const { return datagram_; }
  // A round of Session::expire_flows(): ends a flow of datagrams that carried none for `most` rounds before.
  void quiet_round(unsigned most);

  // Bytes that the service has not taken.
  size_t queued() const { return queue_.size(); }

  // Of LingerList, while it has the stream.
  Clock::TimePoint linger_until;
  std::shared_ptr<LingerAccount> linger_account;
  size_t linger_bytes = 0;

 private:
  friend class SessionListener;

  void on_connected(int error) override;
  void on_readable() override;
  void on_writable() override;

  bool take_window(uint32_t value);
  bool take_data(std::span<const uint8_t> bytes);
  bool take_datagram(std::span<const uint8_t> datagram);
  bool take_fin();
  bool send_datagram(std::span<const uint8_t> datagram);  // false: no room now
  void drain();
  void taken_by_service(size_t cost);
  void end_sending();
  void sending_failed(int error);
  void receiving_failed(int error);
  void fail(int error);  // the stream is over; the host is told
  void list_if_ready();
  void await_readable();
  Read read_bytes(relay_v2::BatchWriter& batch, size_t quantum);
  Read read_datagrams(relay_v2::BatchWriter& batch, size_t quantum, std::span<uint8_t> scratch);
  bool write_datagram(relay_v2::BatchWriter& batch, std::span<const uint8_t> datagram);
  bool may_send(size_t datagram);
  void sent_datagram(size_t size);
  void write_window(relay_v2::BatchWriter& batch);
  void answered();

  StreamOwner* owner_;
  std::unique_ptr<Service> service_;     // null: failed, and only the RESET is left to tell
  SessionListener* listener_ = nullptr;  // while the host has not answered ACCEPTED

  // From the host.
  uint32_t window_;
  const uint32_t largest_window_;
  uint32_t granted_ = 0;     // credit the host has left
  uint32_t returnable_ = 0;  // the service took them, the host was not told
  ByteQueue queue_;

  // To the host.
  uint32_t credit_;
  std::unique_ptr<std::vector<uint8_t>> stash_;  // a datagram that found no room in the last batch

  uint32_t listener_number_ = 0;
  int reset_error_ = 0;
  int broken_ = 0;  // errno: the service takes nothing any more, but may have bytes to give

  const bool datagram_;
  uint8_t quiet_rounds_ = 0;  // since the last datagram
  bool open_ = false;
  bool done_ = false;
  bool host_ended_ = false;   // FIN came
  bool drive_ended_ = false;  // the service ended; FIN was sent unless it is due
  bool lingering_ = false;
  bool readable_ = false;
  bool awaiting_readable_ = false;
  bool awaiting_writable_ = false;
  // Frames due, in the order they are written.
  bool opened_due_ = false;
  bool accepted_due_ = false;
  bool window_due_ = false;
  bool fin_due_ = false;
  bool reset_due_ = false;
};

// Creates the streams of connections that came in.
class Acceptor {
 public:
  virtual void accept(SessionListener& listener, std::unique_ptr<Service> service) = 0;

 protected:
  ~Acceptor() = default;
};

// RESET to an OPEN or LISTEN. Until it is told, or the host has taken the opening back, its number is in use.
class Refusal final : public Channel {
 public:
  Refusal(uint32_t number, int error) : Channel(number), error_(error) {}
  bool is_refusal() const override { return true; }
  bool take(const relay_v2::Frame&) override { return true; }  // the host does not know yet
  bool write_control(relay_v2::BatchWriter& batch) override;
  bool done() const override { return told_; }

 private:
  const int error_;
  bool told_ = false;
};

class SessionListener final : public Channel, public ServiceListener::Observer {
 public:
  SessionListener(Acceptor& acceptor, uint32_t number, uint32_t backlog)
      : Channel(number), acceptor_(acceptor), backlog_(backlog) {}
  ~SessionListener() override;

  // 0 or an errno. Once, and first.
  int listen(ServiceFactory& services, const relay_v2::Target& target);

  std::vector<SessionStream*> untold() const override;
  bool take(const relay_v2::Frame&) override { return false; }  // section 7: the host sends RESET alone
  bool write_control(relay_v2::BatchWriter& batch) override;
  bool done() const override { return false; }

 private:
  friend class SessionStream;

  void on_accepted(std::unique_ptr<Service> service) override { acceptor_.accept(*this, std::move(service)); }
  void joined(SessionStream& stream);
  void left(SessionStream& stream);

  Acceptor& acceptor_;
  const uint32_t backlog_;
  std::unique_ptr<ServiceListener> listener_;
  std::vector<SessionStream*> waiting_;  // streams the host has not answered
  bool listening_due_ = true;
};

}  // namespace nvsock::csd
