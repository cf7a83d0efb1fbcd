#include "csd/target/nvme_connection.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

namespace nvsock::csd {
namespace {

using namespace std::chrono_literals;
using asio::posix::stream_descriptor;
using nvme_tcp::FatalError;
using nvme_tcp::Fault;
using nvme_tcp::From;
using nvme_tcp::PduType;

constexpr auto connect_patience = 10s;
// For the host to read why; then the connection is reset. The specification leaves this open.
constexpr auto end_patience = 2s;
// A host that lost power or its network does not hold its places for longer than a minute, whatever
// keep-alive timeout it asked for; but for one that asked for none while bytes are on the way to it, which
// TCP tries to deliver for about 15 minutes (tcp_retries2).
constexpr int tcp_keep_idle = 30, tcp_keep_interval = 10, tcp_keep_probes = 3;  // seconds, seconds, number
constexpr unsigned max_large = 32;
constexpr uint16_t entries_before_connect = 1;
// Receiving, one connection does not keep the others waiting for longer than so many calls.
constexpr int receives_at_once = 16;
// Replies from this size on do not wait for others.
constexpr uint32_t sent_at_once = 64 * 1024;

// These fail for other families, which have no delay, and whose kernel knows when the other end is gone.
void set_tcp_options(int fd) {
  const auto set = [fd](int level, int option, int value) {
    setsockopt(fd, level, option, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, tcp_keep_idle);
  set(IPPROTO_TCP, TCP_KEEPINTVL, tcp_keep_interval);
  set(IPPROTO_TCP, TCP_KEEPCNT, tcp_keep_probes);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
}

}  // namespace

NvmeConnection::NvmeConnection(const Surroundings& around, int fd, std::unique_ptr<ByteTransport> transport,
                               Peer peer, QueueExecutor& executor)
    : around_(around),
      socket_(around.loop, fd),
      transport_(std::move(transport)),
      peer_(std::move(peer)),
      executor_(&executor),
      timer_(around.clock.make_timer()),
      receiver_(From::host, *this),
      entries_(entries_before_connect),
      sender_(around.loop, *this) {
  set_tcp_options(fd);
}

NvmeConnection::~NvmeConnection() = default;

void NvmeConnection::start() {
  timer_->arm(connect_patience, [this] {
    log(LogLevel::info, "no Connect in time");
    close();
  });
  sender_.start(socket_.native_handle(), *transport_);
  await_readable();
}

void NvmeConnection::adopt(QueueExecutor& executor, uint16_t queue, uint16_t entries) {
  timer_->disarm();
  connected_ = true;
  executor_ = &executor;
  queue_ = queue;
  entries_ = entries;
}

void NvmeConnection::release(QueueExecutor& executor) {
  connected_ = false;
  executor_ = &executor;
  timer_->arm(end_patience, [this] { close(); });
}

void NvmeConnection::leave() {
  connected_ = false;
  if (QueueExecutor* const executor = std::exchange(executor_, nullptr)) executor->closed(*this);
}

void NvmeConnection::close() {
  if (std::exchange(closed_, true)) return;
  timer_->disarm();
  transport_->end();
  sender_.stop();
  asio::error_code ignored;
  socket_.close(ignored);
  leave();
}

void NvmeConnection::log(LogLevel level, const std::string& text) const {
  if (around_.log) around_.log(level, peer() + ": queue " + std::to_string(queue_) + ": " + text);
}

// --- receiving ---

void NvmeConnection::await_readable() {
  if (transport_->pending()) {
    return asio::post(around_.loop, [self = shared_from_this()] {
      if (!self->closed_) self->readable();
    });
  }
  socket_.async_wait(stream_descriptor::wait_read,
                     [self = shared_from_this()](const asio::error_code& cancelled) {
                       if (cancelled || self->closed_) return;
                       self->readable();
                     });
}

void NvmeConnection::readable() {
  for (int i = 0; i < receives_at_once && !closed_; ++i) {
    const std::span<uint8_t> direct = ending_ ? std::span<uint8_t>() : receiver_.direct();
    std::vector<uint8_t>& staging = around_.staging;
    const iovec parts[] = {{direct.data(), direct.size()}, {staging.data(), staging.size()}};
    const ssize_t received = transport_->receive(parts);
    if (received < 0 && errno == EAGAIN) break;
    if (received <= 0) return lost();
    if (ending_) continue;
    const size_t first = std::min(static_cast<size_t>(received), direct.size());
    if (first > 0 && !receiver_.filled(first)) continue;
    receiver_.consume(std::span(staging).first(static_cast<size_t>(received) - first));
    if (static_cast<size_t>(received) < direct.size() + staging.size()) break;
  }
  around_.completions.flush();
  if (closed_) return;
  flush();
  if (!closed_) await_readable();
}

void NvmeConnection::lost() {
  if (!transport_->failure().empty()) log(LogLevel::warning, transport_->failure());
  close();
}

void NvmeConnection::on_fault(const Fault& fault) {
  fail(fault.error, fault.where);
}

// Section 3.5: TermReq, then the connection goes. The association is over at once.
bool NvmeConnection::fail(FatalError error, uint32_t where) {
  log(LogLevel::warning, "ended with C2HTermReq, fatal error " + std::to_string(static_cast<int>(error)) +
                             ", information " + std::to_string(where));
  leave();
  ending_ = true;
  nvme_tcp::OutgoingPdu& out = sender_.add(nullptr);
  out.head_size = encode_term(From::controller, {error, where}, out.head);
  timer_->arm(end_patience, [this] { close(); });
  return false;
}

bool NvmeConnection::on_pdu(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header,
                            std::span<uint8_t>& data) {
  if (checked.type == PduType::h2c_term) {
    const Fault fault = nvme_tcp::parse_term(header);
    log(LogLevel::warning, "the host ended it, fatal error " + std::to_string(static_cast<int>(fault.error)) +
                               ", information " + std::to_string(fault.where));
    close();
    return false;
  }
  if (initialized_ == (checked.type == PduType::ic_req)) return fail(FatalError::sequence, 0);
  switch (checked.type) {
    case PduType::ic_req:
      return on_ic_req(header);
    case PduType::capsule_cmd:
      return on_capsule(checked, header, data);
    default:
      return on_h2c_data(checked, header, data);
  }
}

bool NvmeConnection::on_ic_req(nvme_tcp::HeaderBytes header) {
  const nvme_tcp::IcReq request = nvme_tcp::parse_ic_req(header);
  if (request.version != 0) return fail(FatalError::unsupported_parameter, nvme_tcp::offset::pfv);
  // Linux asks for no alignment of the data it gets, and nothing else here would need padding.
  if (request.alignment != 0) return fail(FatalError::unsupported_parameter, nvme_tcp::offset::hpda);
  initialized_ = true;
  nvme_tcp::OutgoingPdu& out = sender_.add(nullptr);
  out.head_size =
      encode(nvme_tcp::IcResp{.digests = request.digests, .max_h2c_data = max_transfer}, out.head);
  digests_ = request.digests;
  receiver_.set_digests(digests_);
  return true;
}

Request* NvmeConnection::take_request() {
  if (!free_.empty()) {
    Request* const request = free_.back();
    free_.pop_back();
    return request;
  }
  if (requests_.size() >= entries_) return nullptr;
  requests_.push_back(std::make_unique<Request>(*this, static_cast<uint16_t>(requests_.size())));
  return requests_.back().get();
}

bool NvmeConnection::on_capsule(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header,
                                std::span<uint8_t>& data) {
  // More commands than the queue has entries: there is no error of its own for that.
  Request* const request = take_request();
  if (request == nullptr) return fail(FatalError::sequence, 0);
  taken_ = static_cast<uint16_t>((taken_ + 1) % entries_);
  const nvme::Submission submission = nvme::parse_submission(nvme_tcp::submission_of(header), *request);
  request->cid = submission.cid;
  request->refusal = 0;
  request->reply = request->result_high = request->received = 0;
  request->wants_data = false;
  request->data = nullptr;
  const nvme::DataPointer pointer = submission.data.value_or(nvme::DataPointer{});
  request->data_length = pointer.length;
  const nvme::Direction direction = nvme::direction_of(*request);
  const bool in_capsule = submission.data && pointer.kind == nvme::DataPointer::Kind::in_capsule;
  if (checked.data > nvme_tcp::admin_capsule_data)
    return fail(FatalError::limit_exceeded, nvme_tcp::offset::plen);
  if (submission.fused || (pointer.length > 0 && direction == nvme::Direction::both)) {
    request->refusal = status::invalid_field;
  } else if (!submission.data) {
    request->refusal = nvme::status::invalid_sgl_type;
  } else if (in_capsule && pointer.offset != 0) {
    request->refusal = nvme::status::invalid_sgl_offset;
  } else if (checked.data != (in_capsule ? pointer.length : 0) ||
             (in_capsule && pointer.length > 0 && direction != nvme::Direction::to_controller)) {
    request->refusal = nvme::status::invalid_sgl_length;
  } else if (pointer.length > max_transfer || pointer.length % 4 != 0) {
    request->refusal = status::invalid_field;
  }
  if (checked.data > 0) {
    request->buffer = around_.small.take();
    request->data = request->buffer.data();
    receiving_ = request;
    data = {request->buffer.data(), checked.data};
  } else if (request->refusal != 0 || request->data_length == 0) {
    run(*request);
  } else if (waiting_.empty() && take_buffer(*request)) {
    start_transfer(*request);
  } else {
    waiting_.push(*request);
  }
  return true;
}

bool NvmeConnection::take_buffer(Request& request) {
  if (request.data_length <= nvme_tcp::admin_capsule_data) {
    request.buffer = around_.small.take();
  } else if (large_taken_ < max_large) {
    ++large_taken_;
    request.buffer = around_.large.take();
  } else {
    return false;
  }
  request.data = request.buffer.data();
  request.block = &request.buffer;
  return true;
}

void NvmeConnection::start_transfer(Request& request) {
  if (nvme::direction_of(request) != nvme::Direction::to_controller) return run(request);
  request.wants_data = true;
  nvme_tcp::OutgoingPdu& out = sender_.add(nullptr);
  out.head_size = encode(
      nvme_tcp::R2t{.cid = request.cid, .tag = request.tag, .offset = 0, .length = request.data_length},
      digests_, out.head);
}

bool NvmeConnection::on_h2c_data(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header,
                                 std::span<uint8_t>& data) {
  Fault fault;
  const auto told = parse_data(checked, header, fault);
  if (!told) return fail(fault.error, fault.where);
  if (told->tag >= requests_.size() || !requests_[told->tag]->wants_data)
    return fail(FatalError::invalid_header_field, nvme_tcp::offset::ttag);
  Request& request = *requests_[told->tag];
  if (told->cid != request.cid) return fail(FatalError::invalid_header_field, nvme_tcp::offset::cccid);
  if (told->offset != request.received) return fail(FatalError::out_of_range, nvme_tcp::offset::data_offset);
  const uint32_t left = request.data_length - request.received;
  if (told->length > left) return fail(FatalError::limit_exceeded, nvme_tcp::offset::data_length);
  if (told->last != (told->length == left))
    return fail(FatalError::invalid_header_field, nvme_tcp::offset::flags);
  receiving_ = &request;
  data = {request.buffer.data() + request.received, told->length};
  request.received += told->length;
  return true;
}

// Section 3.3.1: a wrong data digest is not fatal; the command fails when all of its data has come.
bool NvmeConnection::on_data(bool digest_right) {
  Request& request = *std::exchange(receiving_, nullptr);
  if (!digest_right) {
    log(LogLevel::warning, "wrong data digest");
    request.refusal = nvme::status::transient_transport_error;
  }
  if (request.wants_data && request.received < request.data_length) return true;
  request.wants_data = false;
  run(request);
  return !ending_ && !closed_;
}

void NvmeConnection::run(Request& request) {
  if (request.refusal == 0) return executor_->execute(request);
  request.completion = {.error = 0, .status = request.refusal, .dw0 = 0};
  around_.completions.post(request);
}

// --- sending ---

void NvmeConnection::respond(Request& request) {
  if (ending_ || closed_) return;
  const Completion& done = request.completion;
  nvme::CompletionEntry entry{.result = done.dw0 | uint64_t{request.result_high} << 32,
                              .sq_head = taken_,
                              .cid = request.cid,
                              .status = done.status};
  // Linux gives up for good where it is told not to retry, and a target that is full will not stay so.
  entry.do_not_retry = done.status != status::success &&
                       done.status != nvme::status::transient_transport_error &&
                       done.status != nvme::status::connect_controller_busy;
  nvme_tcp::OutgoingPdu& out = sender_.add(&request);
  uint8_t response[nvme_tcp::max_header_size];
  const size_t response_size = encode(entry, digests_, response);
  if (done.status != status::success || request.reply == 0) {
    std::copy_n(response, response_size, out.head);
    out.head_size = response_size;
    return;
  }
  out.data = static_cast<const uint8_t*>(request.data);
  out.data_size = request.reply;
  out.head_size = encode(nvme_tcp::Data{.cid = request.cid, .length = request.reply, .last = true},
                         From::controller, digests_, out.head);
  const std::span<uint8_t> tail(out.tail);
  if (digests_.data) {
    nvme_tcp::store_digest({out.data, out.data_size}, tail.first<nvme_tcp::digest_size>());
    out.tail_size = nvme_tcp::digest_size;
  }
  std::copy_n(response, response_size, out.tail + out.tail_size);
  out.tail_size += response_size;
  // While the next is made, the host is at work on this one, which is in the cache still.
  if (out.data_size >= sent_at_once) send();
}

void NvmeConnection::give_back(Request& request) {
  if (request.buffer && request.buffer.capacity() == max_transfer) --large_taken_;
  request.buffer = {};
  free_.push_back(&request);
}

// False: nothing waits for a buffer that there is.
bool NvmeConnection::start_waiting() {
  if (executor_ == nullptr || waiting_.empty()) return false;
  if (!take_buffer(static_cast<Request&>(*waiting_.front()))) return false;
  start_transfer(static_cast<Request&>(waiting_.pop()));
  return true;
}

void NvmeConnection::flush() {
  do send();
  while (start_waiting());
  if (ending_ && !sender_.waiting() && !closed_) {
    transport_->end();
    shutdown(socket_.native_handle(), SHUT_WR);
  }
}

// Runs no request, so that it may be called while one runs.
void NvmeConnection::send() {
  if (!closed_ && !sender_.send({shared_from_this(), this})) abandon();
}

// Not closed from within: whoever flushes may be in the middle of something.
void NvmeConnection::abandon() {
  shutdown(socket_.native_handle(), SHUT_RDWR);
  asio::post(around_.loop, [self = shared_from_this()] {
    if (!self->closed_) self->lost();
  });
  sender_.clear();
}

void NvmeConnection::on_writable() {
  flush();
  // A request that waited for a buffer may have run and completed.
  around_.completions.flush();
}

void NvmeConnection::on_left(void* mark) {
  if (mark != nullptr) give_back(*static_cast<Request*>(mark));
}

// --- addresses ---

sockaddr_storage NvmeConnection::local() const {
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  if (closed_ ||
      getsockname(const_cast<stream_descriptor&>(socket_).native_handle(), reinterpret_cast<sockaddr*>(&name),
                  &size) != 0 ||
      (name.ss_family != AF_INET && name.ss_family != AF_INET6)) {
    name = {};
  }
  return name;
}

}  // namespace nvsock::csd
