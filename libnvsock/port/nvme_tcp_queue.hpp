// One NVMe/TCP connection as its host sees it, which is one admin queue: commands go out as capsules, their
// data moves, completions come back (NVM Express TCP Transport Specification 1.0, section 3).
//
// Data of up to 8 KiB goes in the capsule, more when the controller asks for it with R2T. Payload is sent
// from, and received into, the command's own memory; what a controller sends is held against what the command
// allows before it is placed. Whatever is wrong ends the connection, and with it every command.
//
// Limits: `slots` commands, and 24 KiB of memory whatever the controller does; TLS has its own
// (tls_transport.hpp). Threads: event loop only. Never blocks.
#pragma once

#include <array>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/byte_transport.hpp"
#include "libnvsock/nvme/pdu_sender.hpp"
#include "libnvsock/nvme/tcp_pdu.hpp"

namespace nvsock {

class NvmeTcpQueue final : public std::enable_shared_from_this<NvmeTcpQueue>,
                           private nvme_tcp::PduReceiver::Handler,
                           private nvme_tcp::PduSender::Owner {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  static constexpr uint16_t slots = 17;    // commands at a time
  static constexpr uint16_t entries = 32;  // of the queue as Connect asks for it; never full

  // None is called from within submit() or close().
  class Owner {
   public:
    virtual void on_ready() = 0;  // ICResp came: commands may be submitted
    // The command has its completion, and its memory is the owner's again.
    virtual void on_completed(Command& command) = 0;
    // Everything that had arrived was told.
    virtual void on_batch_end() = 0;
    // The connection is over, and every command was told with this error. The last call. The sentence is
    // about "it", the target.
    virtual void on_lost(const Error& error) = 0;

   protected:
    ~Owner() = default;
  };

  // Does the data of the command go one way, if there is any?
  static bool carries(const Command& command);

  // The owner must outlive the queue, or close it.
  NvmeTcpQueue(asio::io_context& loop, nvme_tcp::Digests digests, Owner& owner);

  // Takes over a non-blocking socket that is connected or on its way to be, and what carries bytes over it.
  // `fd` is closed by the queue.
  void start(int fd, std::unique_ptr<ByteTransport> transport);
  // Places a command; flush() sends it. REQUIRES: ready, carries() it, fewer than `slots` in flight.
  void submit(Command& command);
  void flush();
  // When the first of the commands expires; TimePoint::max(): none is in flight.
  TimePoint next_deadline() const;
  void fail(int code, const std::string& text);  // ends the connection and tells the owner
  void close();                                  // ends it, and the owner hears nothing more

 private:
  // A command in flight. One PDU of it at a time is on its way out.
  struct Slot {
    Command* command = nullptr;  // null: the slot is free
    TimePoint deadline;
    bool answered = false;  // its completion waits until the PDU has left
    bool to_controller = false;
    bool to_host = false;
    // What the controller has asked for and was not made a PDU yet: [offset, end) of the data.
    uint16_t tag = 0;
    uint32_t offset = 0;
    uint32_t end = 0;

    bool sending = false;
  };

  bool on_pdu(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header,
              std::span<uint8_t>& data) override;
  bool on_data(bool digest_right) override;
  void on_fault(const nvme_tcp::Fault& fault) override;
  bool on_ic_resp(const nvme_tcp::IcResp& response);
  bool on_capsule_resp(const nvme::CompletionEntry& entry);
  bool on_c2h_data(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header, std::span<uint8_t>& data);
  bool on_r2t(const nvme_tcp::R2t& request);
  bool refuse(nvme_tcp::FatalError error, uint32_t where);
  Slot* in_flight(uint16_t cid);  // null: no such command waits for anything

  void await_readable();
  void on_writable() override;
  void readable();
  void lost(int code);
  nvme_tcp::OutgoingPdu& send(Slot& slot, uint32_t first, uint32_t size);
  void send_asked(Slot& slot);
  void on_left(void* mark) override;
  void complete(Slot& slot);

  asio::posix::stream_descriptor socket_;
  std::unique_ptr<ByteTransport> transport_;
  const nvme_tcp::Digests digests_;
  Owner& owner_;
  nvme_tcp::PduReceiver receiver_;
  std::array<Slot, slots> slots_;
  nvme_tcp::PduSender sender_;
  Slot* receiving_ = nullptr;  // whose data arrives
  bool receiving_last_ = false;
  bool connected_ = false;
  bool ready_ = false;
  bool closed_ = false;
  bool heard_ = false;
  uint8_t first_byte_ = 0;  // that the target ever sent
  uint32_t max_h2c_data_ = 0;
  uint8_t staging_[8192];  // for headers, and for data that came along with them
};

}  // namespace nvsock
