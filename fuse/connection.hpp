// An open connection file: a stream of the drive behind read, write, poll, fsync and ioctl. A flow of
// datagrams gives one for each read and takes one with each write.
//
// Theory of operation. A request that can be answered is answered where it arrives. One that cannot, and
// may block, is parked in a list; whenever the stream changes, the lists are served in order. A parked
// request leaves in exactly one of four ways: served, interrupted by a signal (EINTR, or the count of bytes
// that moved), timed out (SO_RCVTIMEO, SO_SNDTIMEO), or ended with the mount.
//
// Who owns it: open(), as long as it runs; the drive, while the open waits (MountedDrive::hold); the mount's
// OpenFiles, once OPEN is answered with it. Threads: event loop only. Nothing blocks.
#pragma once

#include <memory>

#include "fuse/mounted_drive.hpp"
#include "fuse/open_file.hpp"
#include "fuse/parked.hpp"
#include "fuse/socket_options.hpp"
#include "libnvsock/device.hpp"
#include "libnvsock/socket/program_errno.hpp"

namespace csdfs {

class Connection final : public OpenFile, public nvsock::StreamObserver {
 public:
  // Connects and answers OPEN: at once when non-blocking, else when the drive has. EACCES: the one who asks
  // may not.
  static void open(MountedDrive& drive, fuse_req_t request, const nvsock::Endpoint& endpoint,
                   const fuse_file_info& info);
  ~Connection() override;

  void read(fuse_req_t request, size_t size, off_t offset, const fuse_file_info& info) override;
  void write(fuse_req_t request, nvsock::Slice data, const fuse_file_info& info) override;
  void poll(fuse_req_t request, fuse_pollhandle* handle) override;
  void ioctl(fuse_req_t request, unsigned command, const void* in, size_t in_size, size_t out_size) override;
  void fsync(fuse_req_t request) override;
  void release() override;
  void cut() override { stream_->cut_on_release(); }

  void on_stream_change(nvsock::Stream& stream) override;

  // The mount ends, and OPEN has not been answered. REQUIRES: the drive holds this, which is gone afterwards.
  void give_up_open() { give_up(opener_waits_.front(), nvsock::file_errno(nvsock::Cause::drive_gone)); }
  pid_t opener() const { return opener_; }
  uid_t opener_user() const { return opener_user_; }
  uint64_t stream_id() const { return stream_->id(); }

 private:
  Connection(MountedDrive& drive, const Caller& opener);

  // Answers OPEN with `connection`, or with its error if it has failed and the open waited for it.
  static void answer_open(std::unique_ptr<Connection> connection, fuse_req_t request, bool waited);

  // Each answers its request if it can be answered now; false: it has to wait.
  bool answer_read(fuse_req_t request, size_t size);
  bool answer_write(Parked& write);
  bool answer_datagram(Parked& write);
  bool answer_fsync(fuse_req_t request);
  // If OPEN waits, `this` may be gone afterwards.
  void serve_changes();
  void notify_pollers();
  uint64_t arrived() const { return stream_->bytes_received() + stream_->datagrams_received(); }

  // The pending error, in an errno that neither the kernel nor the program takes for something else.
  int take_error() { return nvsock::named_errno(static_cast<uint32_t>(stream_->take_error())); }
  // 0, or the error of sending a datagram as send(2) has it.
  int send_datagram(std::span<const uint8_t> datagram);
  int send_error() { return stream_->error() != 0 ? take_error() : EPIPE; }

  // False: a signal was there first, and the request is answered.
  bool park(ParkedList& list, Parked what, timeval timeout);
  bool unpark(ParkedList& list, Parked* entry);  // false: it is not in this list
  static void interrupted(fuse_req_t request, void* parked);
  void give_up(Parked* entry, int error);  // if it is OPEN, `this` is gone afterwards
  void arm_deadline();
  void deadline_passed();

  // op_ioctl.cpp
  void answer_receive(fuse_req_t request, const void* in, size_t in_size, size_t out_size);
  void answer_send(fuse_req_t request, const void* in, size_t in_size);

  MountedDrive& drive_;
  nvsock::StreamHandle stream_;
  const pid_t opener_;
  const uid_t opener_user_;
  SocketOptions options_;
  bool ipv6_socket_ = false;  // an AF_INET6 socket connected to an IPv4 address: mapped addresses
  ParkedList opener_waits_;   // at most one, OPEN: then the drive holds this
  ParkedList readers_;
  ParkedList writers_;
  ParkedList syncers_;
  bool serving_ = false;  // a change that comes meanwhile is looked at afterwards
  bool changed_ = false;
  fuse_pollhandle* pollers_ = nullptr;  // the newest, kept until release
  short told_events_ = 0;
  uint64_t told_received_ = 0;                            // bytes and datagrams
  std::unique_ptr<nvsock::Clock::Timer> deadline_timer_;  // made when a timeout option is first used
};

}  // namespace csdfs
