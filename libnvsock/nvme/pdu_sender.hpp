// Sends PDUs over a byte transport, in order, many of them in one call: what PduReceiver is for the other
// way.
//
// The owner makes a PDU with add() and writes its parts; memory it points to stays until on_left(). What has
// no room in the socket waits in a WritableWait. The PDUs themselves are used again and again: nothing is
// allocated for each. Threads: event loop only. Never blocks.
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <vector>

#include "libnvsock/base/writable_wait.hpp"
#include "libnvsock/nvme/byte_transport.hpp"
#include "libnvsock/nvme/tcp_pdu.hpp"

namespace nvsock::nvme_tcp {

// What leaves in one piece: a header, perhaps data, and what follows the data: its digest, and of a
// controller's reply the response.
struct OutgoingPdu {
  uint8_t head[max_header_size];
  uint8_t tail[digest_size + capsule_resp_size + digest_size];
  size_t head_size = 0;
  size_t tail_size = 0;
  const uint8_t* data = nullptr;
  size_t data_size = 0;
  void* mark = nullptr;  // the owner's

  size_t size() const { return head_size + data_size + tail_size; }

  OutgoingPdu* next = nullptr;  // the sender's
};

class PduSender {
 public:
  class Owner : public WritableWait::Waiter {
   public:
    // The PDU with this mark has left. May add further ones and stop the sender, and must not call send().
    virtual void on_left(void* mark) = 0;

   protected:
    ~Owner() = default;
  };

  PduSender(asio::io_context& loop, Owner& owner) : owner_(owner), writable_(loop) {}
  PduSender(const PduSender&) = delete;
  PduSender& operator=(const PduSender&) = delete;

  // Once, and first. The transport must outlive the sender's use.
  void start(int socket, ByteTransport& transport);

  // A PDU behind all others, empty but for `mark`.
  OutgoingPdu& add(void* mark);
  // Sends as much as there is room for. False, with errno: the connection is lost. `keep` keeps the owner,
  // which is told when there is room again.
  bool send(const std::shared_ptr<Owner>& keep);
  // Waits until the socket is connected or has room, as send() does.
  bool await_writable(const std::shared_ptr<Owner>& keep);

  bool waiting() const { return writable_.waiting(); }
  bool between_pdus() const { return sent_ == 0; }  // none is half sent
  void clear();                                     // forgets what has not left
  void stop();                                      // the same, for good. Before the socket is closed

 private:
  static constexpr size_t max_gather = 32;  // PDUs in one call

  OutgoingPdu& pop();

  Owner& owner_;
  WritableWait writable_;
  int socket_ = -1;
  ByteTransport* transport_ = nullptr;  // null before start() and after stop()
  std::vector<std::unique_ptr<OutgoingPdu>> pdus_;
  OutgoingPdu* free_ = nullptr;
  OutgoingPdu* first_ = nullptr;
  OutgoingPdu* last_ = nullptr;
  size_t sent_ = 0;  // bytes of the first that have left
};

}  // namespace nvsock::nvme_tcp
