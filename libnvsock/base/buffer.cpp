#include "libnvsock/base/buffer.hpp"

#include <new>

namespace nvsock {

FreeList::FreeList(uint32_t capacity, size_t keep, size_t skew)
    : capacity_(capacity), keep_(keep), skew_(skew) {
  free_.reserve(keep);
}

FreeList::~FreeList() {
  for (Buffer* buffer : free_) destroy(buffer);
}

BufferRef FreeList::take() {
  Buffer* buffer = nullptr;
  if (!free_.empty()) {
    buffer = free_.back();
    free_.pop_back();
  } else {
    void* memory = ::operator new(capacity_ + skew_, std::align_val_t(page_size));
    buffer = new Buffer{static_cast<uint8_t*>(memory) + skew_, capacity_, 0, this};
  }
  ++lent_;
  return BufferRef(buffer);
}

void FreeList::give_back(Buffer* buffer) {
  --lent_;
  if (!closed_ && free_.size() < keep_) {
    free_.push_back(buffer);
    return;
  }
  destroy(buffer);
  if (closed_ && lent_ == 0) delete this;
}

void FreeList::close() {
  closed_ = true;
  if (lent_ == 0) delete this;
}

void FreeList::destroy(Buffer* buffer) {
  ::operator delete(buffer->data - skew_, std::align_val_t(page_size));
  delete buffer;
}

}  // namespace nvsock
