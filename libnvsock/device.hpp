// nvsock::Device: one drive and the connections it carries. The library's front door.
//
//   asio::io_context loop;
//   auto device = nvsock::Device::open(loop, "emu:", {});
//   auto stream = (*device)->connect(*nvsock::parse_endpoint("127.0.0.1:22"), &observer);
//   loop.run();
//
// Threads: everything on the thread that runs the loop. Only open() blocks.
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <string>

#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/device_uri.hpp"
#include "libnvsock/host/dialect.hpp"

namespace nvsock {

struct DeviceOptions {
  std::chrono::seconds connect_timeout{130};
  std::chrono::seconds drain_timeout{30};
  Log log;
};

class Device {
 public:
  // Opens the drive and makes sure it is a CSD. Blocks for a few commands, at most 30 s each. On failure
  // the sentence names the device and what to do; the code is ENOTSUP when the drive is not a CSD.
  static Result<std::unique_ptr<Device>> open(asio::io_context& loop, const std::string& uri,
                                              const DeviceOptions& options);

  // Starts a connection, or by the endpoint's type a flow of datagrams, to a service inside the drive; never
  // blocks. What the drive's protocol cannot express fails at once (EPROTONOSUPPORT: datagrams), anything
  // else is told through the stream, whose observer may be called before this returns. Destroy every handle
  // before the device.
  Result<StreamHandle> connect(const Endpoint& endpoint, StreamObserver* observer) {
    return dialect_->connect(endpoint, observer);
  }

  // Makes the drive listen at an address inside, and gives the connections that come; see
  // libnvsock/socket/listener.hpp. REQUIRES: 1 <= backlog <= max_backlog. ENOTSUP with a sentence where the
  // drive cannot. The observer may be called before this returns. Destroy every handle before the device.
  Result<ListenerHandle> listen(const Endpoint& where, uint32_t backlog, ListenerObserver* observer) {
    return dialect_->listen(where, backlog, observer);
  }

  // Asks the drive for its counters, which takes a round trip; `told` is called once, maybe before this
  // returns. False: drives of this generation count nothing, or this one does not answer now.
  bool ask_counters(std::function<void(const DriveCounters&)> told) {
    return dialect_->ask_counters(std::move(told));
  }

  // The stream of this number, as Stream::id() tells it, also one whose handle is gone and that drains; or
  // null.
  Stream* find_stream(uint64_t id) const { return dialect_->find_stream(id); }

  const DeviceUri& uri() const { return uri_; }
  const std::string& model() const { return model_; }  // Identify Controller, MN
  std::string_view dialect() const { return dialect_->name(); }
  unsigned max_streams() const { return dialect_->max_streams(); }
  const std::string& dialect_reason() const { return dialect_reason_; }  // what decided it
  std::string port() const { return port_->describe(); }
  std::string faults_text() const { return port_->faults_text(); }  // see CommandPort
  std::optional<SessionStatus> session_status() const { return dialect_->session_status(); }
  bool drained() const { return dialect_->drained(); }  // nothing accepted is on its way any more

  // --- the end of the program. REQUIRES: every handle was dropped. Nothing may be opened any more. ---

  // Bytes that were accepted go on to the drive, and in one that lives in this process to its services.
  void finish();
  // All of it is with the drive, which knows that this was all; and it is with the services, too.
  bool detached() const { return dialect_->finished(); }
  bool finished() const { return detached() && port_->delivery().waiting.none(); }
  // What is not there yet, or has got lost since finish(), of connections that were closed in good order.
  Undelivered undelivered() const;
  // What is left is dropped: its services see a reset, at the latest when the device is destroyed.
  void give_up() { dialect_->give_up(); }

  const DialectCounters& counters() const { return dialect_->counters(); }
  void for_each_stream(const std::function<void(const Stream&)>& visit) const {
    dialect_->for_each_stream(visit);
  }

 private:
  Undelivered lost() const;
  explicit Device(asio::io_context& loop) : clock_(loop) {}

  AsioClock clock_;
  DeviceUri uri_;
  std::string model_;
  std::string dialect_reason_;
  Undelivered lost_before_;  // finish()
  std::unique_ptr<CommandPort> port_;
  std::unique_ptr<Dialect> dialect_;  // uses the port: destroyed first
};

}  // namespace nvsock
