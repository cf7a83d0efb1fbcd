// Page-aligned memory that commands and queues share without copying.
//
// A BufferPool hands out blocks of one size and takes them back when the last BufferRef goes; a Slice is
// a run of bytes inside a block. Page alignment is what the v1 opcode needs (an unaligned buffer is
// bounced by the kernel in the wrong direction, Linux 5.10-6.12 blk_rq_map_user) and costs nothing else.
//
// Threads: everything here belongs to the event loop's thread; counts are not atomic. Another thread may
// use the bytes of a block while a command lends them to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace nvsock {

inline constexpr size_t page_size = 4096;

class FreeList;

struct Buffer {
  uint8_t* data = nullptr;  // page aligned (plus the pool's skew)
  uint32_t capacity = 0;
  uint32_t references = 0;
  FreeList* home = nullptr;
};

class BufferRef {
 public:
  BufferRef() = default;
  explicit BufferRef(Buffer* buffer) : buffer_(buffer) { ++buffer_->references; }
  BufferRef(const BufferRef& other) : buffer_(other.buffer_) {
    if (buffer_ != nullptr) ++buffer_->references;
  }
  BufferRef(BufferRef&& other) noexcept : buffer_(std::exchange(other.buffer_, nullptr)) {}
  BufferRef& operator=(BufferRef other) noexcept {
    std::swap(buffer_, other.buffer_);
    return *this;
  }
  inline ~BufferRef();

  explicit operator bool() const { return buffer_ != nullptr; }
  uint8_t* data() const { return buffer_->data; }
  uint32_t capacity() const { return buffer_->capacity; }
  bool unique() const { return buffer_->references == 1; }

 private:
  Buffer* buffer_ = nullptr;
};

// The free blocks of one pool; outlives the pool while blocks are lent out.
class FreeList {
 public:
  FreeList(uint32_t capacity, size_t keep, size_t skew);
  ~FreeList();
  BufferRef take();
  void give_back(Buffer* buffer);
  void close();  // the pool is gone: deletes itself with the last block
  size_t lent() const { return lent_; }

 private:
  void destroy(Buffer* buffer);

  const uint32_t capacity_;
  const size_t keep_;
  const size_t skew_;
  size_t lent_ = 0;
  bool closed_ = false;
  std::vector<Buffer*> free_;
};

// Blocks of `capacity` bytes. At most `keep` free blocks are kept for reuse, the rest is given back to
// the system. `skew`: offset of the bytes from a page boundary, for headers that precede page-aligned
// payload. Blocks may outlive the pool.
class BufferPool {
 public:
  BufferPool(uint32_t capacity, size_t keep, size_t skew = 0) : list_(new FreeList(capacity, keep, skew)) {}
  ~BufferPool() { list_->close(); }
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  BufferRef take() { return list_->take(); }  // throws bad_alloc when memory is out, like operator new
  size_t lent() const { return list_->lent(); }

 private:
  FreeList* list_;
};

inline BufferRef::~BufferRef() {
  if (buffer_ != nullptr && --buffer_->references == 0) buffer_->home->give_back(buffer_);
}

struct Slice {
  BufferRef buffer;  // keeps `data` alive; empty for borrowed bytes
  const uint8_t* data = nullptr;
  uint32_t size = 0;
};

}  // namespace nvsock
