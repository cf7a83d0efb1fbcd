// One relay of the drive: a TCP socket inside it and the commands that wait for it.
//
// Reads queue in order and are served together: one recvmsg fills the buffers of all that wait. Writes
// likewise leave in one sendmsg. Threads: event loop only. Never blocks.
#pragma once

#include <asio/posix/stream_descriptor.hpp>
#include <memory>

#include "libnvsock/base/writable_wait.hpp"
#include "libnvsock/nvme/command.hpp"

struct sockaddr_in;

namespace nvsock::csd {

class RelayFirmware;

class Relay final : public std::enable_shared_from_this<Relay>, private WritableWait::Waiter {
 public:
  Relay(RelayFirmware& firmware, uint32_t descriptor, int fd);  // takes over the non-blocking socket

  void connect(const sockaddr_in& address, Command& open);
  void queue_read(Command& read);    // served by serve_reads()
  void queue_write(Command& write);  // sent by send_writes()
  void serve_reads();
  void await_readable();  // if reads are left that found nothing
  void send_writes();
  bool writes_pending() const { return !writes_.empty(); }
  // Ends the relay: waiting reads complete with end of stream, unsent writes fail. The peer sees the end if
  // it is `in_order` and no write is left, otherwise a reset.
  void close(bool in_order);

  bool touched = false;  // listed by the firmware for serve_reads()

 private:
  void connected(int error);
  void on_writable() override;
  void await_writable();
  void end_reads(int error);  // 0: end of stream
  void fail_writes(int error);

  RelayFirmware& firmware_;
  const uint32_t descriptor_;
  asio::posix::stream_descriptor socket_;
  WritableWait writable_;
  Command* opening_ = nullptr;
  CommandQueue reads_;
  unsigned reads_queued_ = 0;
  CommandQueue writes_;
  uint32_t first_write_sent_ = 0;  // bytes of the oldest write that left already
  bool drained_ = false;           // the socket has nothing until it becomes readable again
  bool awaiting_readable_ = false;
  bool ended_ = false;  // the peer ended its direction
  bool lost_ = false;   // the peer reset the connection and the firmware lost its reads
  bool closed_ = false;
};

}  // namespace nvsock::csd
