#include "libnvsock/port/nvme_tcp_queue.hpp"

#include <algorithm>
#include <asio/post.hpp>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <utility>

#include "libnvsock/base/socket_error.hpp"

namespace nvsock {
namespace {

using asio::posix::stream_descriptor;
using nvme::Direction;
using nvme_tcp::FatalError;
using nvme_tcp::Fault;
using nvme_tcp::From;
using nvme_tcp::PduType;

// Receiving does not keep the loop from everything else for longer than so many calls.
constexpr int receives_at_once = 16;
// RFC 8446 section 5.1: the type of the record with which a TLS server answers ICReq.
constexpr uint8_t tls_alert = 21;
constexpr uint32_t least_h2c_data = 4096;  // section 3.6.2.3, MAXH2CDATA

}  // namespace

NvmeTcpQueue::NvmeTcpQueue(asio::io_context& loop, nvme_tcp::Digests digests, Owner& owner)
    : socket_(loop),
      digests_(digests),
      owner_(owner),
      receiver_(From::controller, *this),
      sender_(loop, *this) {}

// --- the connection ---

void NvmeTcpQueue::start(int fd, std::unique_ptr<ByteTransport> transport) {
  socket_.assign(fd);
  transport_ = std::move(transport);
  sender_.start(fd, *transport_);
  nvme_tcp::OutgoingPdu& greeting = sender_.add(nullptr);
  greeting.head_size = nvme_tcp::encode(nvme_tcp::IcReq{.digests = digests_}, greeting.head);
  if (!sender_.await_writable({shared_from_this(), this})) lost(errno);
}

void NvmeTcpQueue::on_writable() {
  if (!std::exchange(connected_, true)) {
    const int error = socket_error(socket_.native_handle());
    if (error != 0) {
      lost(error);
    } else {
      await_readable();
    }
  }
  if (!closed_) flush();
  owner_.on_batch_end();
}

void NvmeTcpQueue::close() {
  if (std::exchange(closed_, true)) return;
  if (transport_ != nullptr) transport_->end();
  sender_.stop();
  asio::error_code ignored;
  socket_.close(ignored);
}

void NvmeTcpQueue::fail(int code, const std::string& text) {
  if (closed_) return;
  close();
  for (Slot& slot : slots_) {
    if (slot.command == nullptr) continue;
    slot.command->completion = {.error = code};
    complete(slot);
  }
  owner_.on_lost({code, text});
}

void NvmeTcpQueue::lost(int code) {
  if (const std::string& why = transport_->failure(); !why.empty()) return fail(EPROTO, why);
  if (first_byte_ == tls_alert && !ready_) {
    return fail(EPROTO, "it requires TLS; give ?tls-key=FILE, with its key in the file");
  }
  if (code != 0) return fail(code, std::strerror(code));
  fail(ECONNRESET, heard_ ? "it closed the connection"
                          : "it closed the connection without a word; does it require TLS (?tls-key=FILE)?");
}

// Section 3.5. The reason is sent if no PDU is half sent and there is room: it changes nothing for us.
bool NvmeTcpQueue::refuse(FatalError error, uint32_t where) {
  if (!ready_) {
    if (first_byte_ == tls_alert) {
      lost(0);
    } else {
      fail(EPROTO, "what listens there does not speak NVMe/TCP as this host does");
    }
    return false;
  }
  if (sender_.between_pdus()) {
    uint8_t term[nvme_tcp::max_header_size];
    const size_t size = nvme_tcp::encode_term(From::host, {error, where}, term);
    const iovec part = {term, size};
    static_cast<void>(transport_->send({&part, 1}));
  }
  fail(EPROTO, "it broke the rules of NVMe/TCP (fatal error " + std::to_string(static_cast<int>(error)) +
                   ", information " + std::to_string(where) + ")");
  return false;
}

// --- commands ---

bool NvmeTcpQueue::carries(const Command& command) {
  const Direction direction = nvme::direction_of(command);
  return command.data_length == 0 || direction == Direction::to_controller || direction == Direction::to_host;
}

void NvmeTcpQueue::submit(Command& command) {
  assert(ready_ && !closed_ && carries(command));
  Slot& slot = *std::ranges::find_if(slots_, [](const Slot& free) { return free.command == nullptr; });
  slot.command = &command;
  slot.deadline = std::chrono::steady_clock::now() + command.timeout;
  slot.answered = false;
  slot.offset = slot.end = 0;

  const Direction direction = nvme::direction_of(command);
  const bool in_capsule =
      direction == Direction::to_controller && command.data_length <= nvme_tcp::admin_capsule_data;
  nvme::DataPointer data{.length = command.data_length};
  if (in_capsule && command.data_length > 0) data.kind = nvme::DataPointer::Kind::in_capsule;
  const uint32_t size = in_capsule ? command.data_length : 0;
  slot.to_host = direction == Direction::to_host;
  slot.to_controller = direction == Direction::to_controller && !in_capsule;  // what R2T may ask for
  nvme_tcp::OutgoingPdu& pdu = send(slot, 0, size);
  pdu.head_size = nvme_tcp::encode_capsule_cmd(command, static_cast<uint16_t>(&slot - slots_.data()), data,
                                               size, digests_, pdu.head);
}

NvmeTcpQueue::TimePoint NvmeTcpQueue::next_deadline() const {
  TimePoint first = TimePoint::max();
  for (const Slot& slot : slots_) {
    if (slot.command != nullptr) first = std::min(first, slot.deadline);
  }
  return first;
}

NvmeTcpQueue::Slot* NvmeTcpQueue::in_flight(uint16_t cid) {
  if (cid >= slots || slots_[cid].command == nullptr || slots_[cid].answered) return nullptr;
  return &slots_[cid];
}

void NvmeTcpQueue::complete(Slot& slot) {
  Command& command = *slot.command;
  slot.command = nullptr;
  owner_.on_completed(command);
}

// --- sending ---

// A PDU with `size` bytes of the command's data; the head is for the caller to write.
nvme_tcp::OutgoingPdu& NvmeTcpQueue::send(Slot& slot, uint32_t first, uint32_t size) {
  slot.sending = true;
  nvme_tcp::OutgoingPdu& pdu = sender_.add(&slot);
  pdu.data = static_cast<const uint8_t*>(slot.command->data) + first;
  pdu.data_size = size;
  if (size > 0 && digests_.data) {
    nvme_tcp::store_digest({pdu.data, size}, std::span(pdu.tail).first<nvme_tcp::digest_size>());
    pdu.tail_size = nvme_tcp::digest_size;
  }
  return pdu;
}

void NvmeTcpQueue::send_asked(Slot& slot) {
  const uint32_t size = std::min(slot.end - slot.offset, max_h2c_data_);
  const nvme_tcp::Data header{.cid = static_cast<uint16_t>(&slot - slots_.data()),
                              .tag = slot.tag,
                              .offset = slot.offset,
                              .length = size,
                              .last = slot.offset + size == slot.end};
  nvme_tcp::OutgoingPdu& pdu = send(slot, slot.offset, size);
  pdu.head_size = nvme_tcp::encode(header, From::host, digests_, pdu.head);
  slot.offset += size;
}

void NvmeTcpQueue::on_left(void* mark) {
  if (mark == nullptr) return;  // ICReq
  Slot& slot = *static_cast<Slot*>(mark);
  slot.sending = false;
  if (slot.answered) {
    complete(slot);
  } else if (slot.offset < slot.end) {
    send_asked(slot);
  }
}

void NvmeTcpQueue::flush() {
  if (!closed_ && !sender_.send({shared_from_this(), this})) lost(errno);
}

// --- receiving ---

void NvmeTcpQueue::await_readable() {
  if (transport_->pending()) {
    return asio::post(socket_.get_executor(), [self = shared_from_this()] {
      if (!self->closed_) self->readable();
    });
  }
  socket_.async_wait(stream_descriptor::wait_read,
                     [self = shared_from_this()](const asio::error_code& cancelled) {
                       if (!cancelled && !self->closed_) self->readable();
                     });
}

void NvmeTcpQueue::readable() {
  for (int i = 0; i < receives_at_once && !closed_; ++i) {
    const std::span<uint8_t> direct = receiver_.direct();
    const iovec parts[] = {{direct.data(), direct.size()}, {staging_, sizeof staging_}};
    const ssize_t received = transport_->receive(parts);
    if (received < 0 && errno == EAGAIN) break;
    if (received <= 0) {
      lost(received < 0 ? errno : 0);
      break;
    }
    const auto size = static_cast<size_t>(received);
    const size_t placed = std::min(size, direct.size());
    if (!heard_) first_byte_ = staging_[0];
    heard_ = true;
    if (placed > 0 && !receiver_.filled(placed)) break;
    if (!receiver_.consume(std::span(staging_).first(size - placed))) break;
    if (size < direct.size() + sizeof staging_) break;
  }
  if (!closed_) flush();
  owner_.on_batch_end();
  if (!closed_) await_readable();
}

bool NvmeTcpQueue::on_pdu(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header,
                          std::span<uint8_t>& data) {
  if (checked.type == PduType::c2h_term) {
    const Fault fault = nvme_tcp::parse_term(header);
    fail(EPROTO, "it ended the connection (fatal error " + std::to_string(static_cast<int>(fault.error)) +
                     ", information " + std::to_string(fault.where) + ")");
    return false;
  }
  if (ready_ == (checked.type == PduType::ic_resp)) return refuse(FatalError::sequence, 0);
  switch (checked.type) {
    case PduType::ic_resp:
      return on_ic_resp(nvme_tcp::parse_ic_resp(header));
    case PduType::capsule_resp:
      return on_capsule_resp(nvme::parse_completion(nvme_tcp::completion_of(header)));
    case PduType::c2h_data:
      return on_c2h_data(checked, header, data);
    default:
      return on_r2t(nvme_tcp::parse_r2t(header));
  }
}

void NvmeTcpQueue::on_fault(const Fault& fault) {
  refuse(fault.error, fault.where);
}

bool NvmeTcpQueue::on_ic_resp(const nvme_tcp::IcResp& response) {
  if (response.digests.header != digests_.header || response.digests.data != digests_.data) {
    fail(EPROTO, "it does not agree to the digests asked for; give ?digests=none");
  } else if (response.version != 0 || response.alignment != 0 || response.max_h2c_data < least_h2c_data) {
    fail(EPROTO, "it demands what is not supported (PFV " + std::to_string(response.version) + ", CPDA " +
                     std::to_string(response.alignment) + ", MAXH2CDATA " +
                     std::to_string(response.max_h2c_data) + ")");
  } else {
    max_h2c_data_ = response.max_h2c_data;
    receiver_.set_digests(digests_);
    ready_ = true;
    owner_.on_ready();
  }
  return !closed_;
}

bool NvmeTcpQueue::on_capsule_resp(const nvme::CompletionEntry& entry) {
  Slot* const slot = in_flight(entry.cid);
  if (slot == nullptr) return refuse(FatalError::invalid_header_field, nvme_tcp::offset::cccid);
  slot->command->completion = {.status = entry.status, .dw0 = static_cast<uint32_t>(entry.result)};
  if (slot->sending) {
    slot->answered = true;
  } else {
    complete(*slot);
  }
  return true;
}

bool NvmeTcpQueue::on_c2h_data(const nvme_tcp::Header& checked, nvme_tcp::HeaderBytes header,
                               std::span<uint8_t>& data) {
  Fault fault;
  const auto part = nvme_tcp::parse_data(checked, header, fault);
  if (!part) return refuse(fault.error, fault.where);
  Slot* const slot = in_flight(part->cid);
  if (slot == nullptr || !slot->to_host || slot->sending) {
    return refuse(FatalError::invalid_header_field, nvme_tcp::offset::cccid);
  }
  const uint32_t room = slot->command->data_length;
  if (part->offset > room || part->length > room - part->offset) {
    return refuse(FatalError::out_of_range, nvme_tcp::offset::data_offset);
  }
  if (part->success && !part->last) {
    return refuse(FatalError::invalid_header_field, nvme_tcp::offset::flags);
  }
  data = {static_cast<uint8_t*>(slot->command->data) + part->offset, part->length};
  receiving_ = slot;
  receiving_last_ = part->success;
  return true;
}

// A wrong data digest is not fatal to the connection (section 3.4.2), but what the command did is not known,
// and that is the same case.
bool NvmeTcpQueue::on_data(bool digest_right) {
  if (!digest_right) {
    fail(EIO, "a data digest is wrong");
    return false;
  }
  if (receiving_last_) {
    receiving_->command->completion = {};
    complete(*receiving_);
  }
  return true;
}

bool NvmeTcpQueue::on_r2t(const nvme_tcp::R2t& request) {
  Slot* const slot = in_flight(request.cid);
  if (slot == nullptr || !slot->to_controller || slot->sending) {
    return refuse(FatalError::invalid_header_field, nvme_tcp::offset::cccid);
  }
  // In order, so that a transfer ends however often it is asked for.
  const uint32_t size = slot->command->data_length;
  if (request.length == 0 || request.offset < slot->end || request.offset > size ||
      request.length > size - request.offset) {
    return refuse(FatalError::out_of_range, nvme_tcp::offset::data_offset);
  }
  slot->tag = request.tag;
  slot->offset = request.offset;
  slot->end = request.offset + request.length;
  send_asked(*slot);
  return true;
}

}  // namespace nvsock
