#include "libnvsock/nvme/pdu_sender.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

namespace nvsock::nvme_tcp {

void PduSender::start(int socket, ByteTransport& transport) {
  socket_ = socket;
  transport_ = &transport;
}

OutgoingPdu& PduSender::add(void* mark) {
  if (free_ == nullptr) {
    pdus_.push_back(std::make_unique<OutgoingPdu>());
    free_ = pdus_.back().get();
  }
  OutgoingPdu& pdu = *free_;
  free_ = pdu.next;
  pdu.head_size = pdu.tail_size = pdu.data_size = 0;
  pdu.data = nullptr;
  pdu.mark = mark;
  pdu.next = nullptr;
  (first_ == nullptr ? first_ : last_->next) = &pdu;
  last_ = &pdu;
  return pdu;
}

// Out of the queue, and free from the next add() on.
OutgoingPdu& PduSender::pop() {
  OutgoingPdu& pdu = *first_;
  first_ = pdu.next;
  pdu.next = free_;
  free_ = &pdu;
  return pdu;
}

bool PduSender::send(const std::shared_ptr<Owner>& keep) {
  while (transport_ != nullptr && !waiting() && transport_->sends(first_ != nullptr)) {
    std::array<iovec, 3 * max_gather> parts;
    size_t count = 0;
    size_t skip = sent_;
    const auto add_part = [&](const uint8_t* bytes, size_t size) {
      const size_t gone = std::min(skip, size);
      skip -= gone;
      if (size > gone) parts[count++] = {const_cast<uint8_t*>(bytes) + gone, size - gone};
    };
    size_t gathered = 0;
    for (const OutgoingPdu* pdu = first_; pdu != nullptr && gathered < max_gather; pdu = pdu->next) {
      add_part(pdu->head, pdu->head_size);
      add_part(pdu->data, pdu->data_size);
      add_part(pdu->tail, pdu->tail_size);
      ++gathered;
    }
    const ssize_t size = transport_->send({parts.data(), count});
    if (size < 0) return errno == EAGAIN && await_writable(keep);
    sent_ += static_cast<size_t>(size);
    while (first_ != nullptr && sent_ >= first_->size()) {
      sent_ -= first_->size();
      owner_.on_left(pop().mark);
    }
  }
  return true;
}

bool PduSender::await_writable(const std::shared_ptr<Owner>& keep) {
  return writable_.start(socket_, keep);
}

void PduSender::clear() {
  while (first_ != nullptr) pop();
  sent_ = 0;
}

void PduSender::stop() {
  clear();
  writable_.stop();
  transport_ = nullptr;
}

}  // namespace nvsock::nvme_tcp
