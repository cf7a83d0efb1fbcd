// One NVMe/TCP connection of a controller, which is one queue: the PDU state machine, digests, and the data
// of commands (NVM Express TCP Transport Specification 1.0, section 3).
//
// Commands with their data complete go to an executor, completions come back and leave with the data they
// carry. Data of up to 8 KiB comes in capsule; for more the host is asked with one R2T a command. What breaks
// the rules of PDUs ends the connection with C2HTermReq; what breaks those of commands is a status.
//
// Limits of a connection: as many commands as its queue has entries, 128 KiB of data a command, and at most
// 32 commands with more than 8 KiB at a time: others wait for a buffer. That is 5 MiB with 128 entries, and
// what TLS takes (libnvsock/nvme/tls_transport.hpp). It has 10 s to connect its queue, TLS included. Received
// bytes pass through memory that all connections share. Threads: event loop only. Never blocks.
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "csd/base/completion_queue.hpp"
#include "libnvsock/base/buffer.hpp"
#include "libnvsock/base/clock.hpp"
#include "libnvsock/base/log.hpp"
#include "libnvsock/nvme/byte_transport.hpp"
#include "libnvsock/nvme/pdu_sender.hpp"
#include "libnvsock/nvme/tcp_pdu.hpp"

namespace nvsock::csd {

class NvmeConnection;

inline constexpr uint32_t max_transfer = 128 * 1024;  // bytes a command

// Who has connected. Of one origin are those that one machine can make at will: an IPv4 address, an IPv6
// network of 64 bits, a user on the other end of a unix socket, a CID.
struct Peer {
  std::string text;    // for the log
  std::string origin;  // for limits
};

// A command that came over a connection. Belongs to the connection; whoever executes it sets `completion`
// and posts it to the connection's CompletionQueue.
struct Request final : Command {
  Request(NvmeConnection& of, uint16_t number) : connection(of), tag(number) {}

  NvmeConnection& connection;
  uint32_t reply = 0;        // bytes at `data` for the host, if the command succeeds
  uint32_t result_high = 0;  // of the completion: DW1

 private:
  friend class NvmeConnection;
  const uint16_t tag;  // its place in the connection, and the tag of its R2T
  uint16_t cid = 0;
  uint16_t refusal = 0;     // a status other than success: it fails with that as soon as its data is here
  bool wants_data = false;  // R2T was sent
  uint32_t received = 0;
  BufferRef buffer;
};

class QueueExecutor {
 public:
  virtual void execute(Request& request) = 0;
  // The connection is over and its requests are about to go: the executor forgets them. Once, and last.
  virtual void closed(NvmeConnection& connection) = 0;

 protected:
  ~QueueExecutor() = default;
};

class NvmeConnection final : public std::enable_shared_from_this<NvmeConnection>,
                             private nvme_tcp::PduReceiver::Handler,
                             private nvme_tcp::PduSender::Owner {
 public:
  // What all connections of a target share; outlives them.
  struct Surroundings {
    asio::io_context& loop;
    Clock& clock;
    CompletionQueue& completions;
    BufferPool& large;  // max_transfer
    BufferPool& small;  // nvme_tcp::admin_capsule_data
    std::vector<uint8_t>& staging;
    const Log& log;
  };

  // Takes over the non-blocking socket, and what carries bytes over it. `executor` gets the commands until
  // adopt(): Connect.
  NvmeConnection(const Surroundings& around, int fd, std::unique_ptr<ByteTransport> transport, Peer peer,
                 QueueExecutor& executor);
  ~NvmeConnection();

  void start();
  // The queue is connected: it has a number and so many entries.
  void adopt(QueueExecutor& executor, uint16_t queue, uint16_t entries);
  // The host has disconnected its queue; `executor` gets the commands again. The host closes the connection,
  // or it is closed soon.
  void release(QueueExecutor& executor);
  void close();  // at once; the executor is told if it was not yet

  uint16_t queue() const { return queue_; }
  // Is it a queue of a controller? Until then it is a stranger's: whoever reaches the port can make one.
  bool connected() const { return connected_; }
  const std::string& peer() const { return peer_.text; }
  const std::string& origin() const { return peer_.origin; }
  // The NQN that the host has shown to be its own by its TLS key; empty without TLS.
  std::string_view proven_host() const { return transport_->proven_host(); }
  // Where the host has connected to: an IPv4 or IPv6 address, or one of family AF_UNSPEC.
  sockaddr_storage local() const;

  // For the CompletionQueue: queues what the host is told, or sends it at once; and sends what is queued.
  void respond(Request& request);
  void flush();

 private:
  bool on_pdu(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header,
              std::span<uint8_t>& data) override;
  bool on_data(bool digest_right) override;
  void on_fault(const nvme_tcp::Fault& fault) override;

  bool fail(nvme_tcp::FatalError error, uint32_t where);
  bool on_ic_req(nvme_tcp::HeaderBytes header);
  bool on_capsule(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header, std::span<uint8_t>& data);
  bool on_h2c_data(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header, std::span<uint8_t>& data);

  Request* take_request();
  void give_back(Request& request);
  bool start_waiting();
  void send();
  bool take_buffer(Request& request);  // false: it has to wait
  void start_transfer(Request& request);
  void run(Request& request);

  void await_readable();
  void readable();
  void on_writable() override;
  void on_left(void* mark) override;
  void lost();
  void abandon();
  void leave();
  void log(LogLevel level, const std::string& text) const;

  const Surroundings around_;
  asio::posix::stream_descriptor socket_;
  const std::unique_ptr<ByteTransport> transport_;
  const Peer peer_;
  QueueExecutor* executor_;  // null: it was told that the connection is over
  std::unique_ptr<Clock::Timer> timer_;
  nvme_tcp::PduReceiver receiver_;
  nvme_tcp::Digests digests_;
  bool initialized_ = false;  // ICReq came
  bool connected_ = false;    // between adopt() and release(), fail() or close()
  bool ending_ = false;       // TermReq is the last that leaves; what comes in is not looked at
  bool closed_ = false;

  uint16_t queue_ = 0;
  uint16_t entries_;
  uint16_t taken_ = 0;  // commands, modulo entries: the head of the submission queue
  std::vector<std::unique_ptr<Request>> requests_;
  std::vector<Request*> free_;
  Request* receiving_ = nullptr;  // whose data is being received
  CommandQueue waiting_;          // for a large buffer
  unsigned large_taken_ = 0;
  nvme_tcp::PduSender sender_;
};

}  // namespace nvsock::csd
