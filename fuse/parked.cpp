#include "fuse/parked.hpp"

namespace csdfs {

void ParkedList::push(Parked* entry) {
  entry->next = nullptr;
  (head_ == nullptr ? head_ : tail_->next) = entry;
  tail_ = entry;
}

bool ParkedList::remove(Parked* entry) {
  Parked* previous = nullptr;
  for (Parked* at = head_; at != nullptr; previous = at, at = at->next) {
    if (at != entry) continue;
    (previous == nullptr ? head_ : previous->next) = at->next;
    if (tail_ == at) tail_ = previous;
    return true;
  }
  return false;
}

Parked* ParkedPool::take() {
  if (free_.empty()) return new Parked;
  Parked* const entry = free_.back().release();
  free_.pop_back();
  return entry;
}

void ParkedPool::give_back(Parked* entry) {
  std::unique_ptr<Parked> owned(entry);
  entry->data = {};
  if (free_.size() < kept) free_.push_back(std::move(owned));
}

}  // namespace csdfs
