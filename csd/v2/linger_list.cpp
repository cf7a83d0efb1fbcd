#include "csd/v2/linger_list.hpp"

#include <utility>

namespace nvsock::csd {

LingerList::~LingerList() {
  while (!streams_.empty()) delete &streams_.pop_front();
}

void LingerList::add(std::unique_ptr<SessionStream> stream, const std::shared_ptr<LingerAccount>& account) {
  if (!stream->linger(*this)) return;
  stream->linger_account = account;
  stream->linger_bytes = stream->queued();
  ++account->streams;
  account->bytes += stream->linger_bytes;
  stream->linger_until = clock_.now() + patience_;
  streams_.push_back(*stream.release());
  if (!std::exchange(armed_, true)) timer_->arm(patience_, [this] { expire(); });
}

void LingerList::leave(LingerAccount& account) {
  account.left = true;
  if (account.streams > 0) ++left_;
}

Delivery LingerList::delivery() const {
  Delivery delivery{.waiting = {}, .given_up = given_up_};
  streams_.for_each([&](const SessionStream& stream) { delivery.waiting.add(stream.queued()); });
  return delivery;
}

void LingerList::settled(Channel& channel) {
  if (channel.done()) remove(static_cast<SessionStream&>(channel));
}

void LingerList::remove(SessionStream& stream) {
  LingerAccount& account = *stream.linger_account;
  account.bytes -= stream.linger_bytes;
  if (--account.streams == 0 && account.left) --left_;
  delete &stream;  // leaves the list by itself
}

void LingerList::expire() {
  while (!streams_.empty() && streams_.front().linger_until <= clock_.now()) {
    given_up_.add(streams_.front().queued());
    streams_.front().linger_account->lost += streams_.front().queued();
    remove(streams_.front());
  }
  armed_ = !streams_.empty();
  if (armed_) timer_->arm(streams_.front().linger_until - clock_.now(), [this] { expire(); });
}

}  // namespace nvsock::csd
