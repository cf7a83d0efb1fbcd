// A first-in, first-out queue of bytes kept as slices of shared buffers; the send queue and the
// read-ahead of every stream.
//
// A ring that doubles when it is full and is given back when it runs empty after a burst, so that an idle
// stream costs no memory for it. The owner bounds the bytes; the queue only counts them.
// Threads: event loop only.
#pragma once

#include <sys/uio.h>

#include <cstring>
#include <memory>

#include "libnvsock/base/buffer.hpp"

namespace nvsock {

class SliceQueue {
 public:
  bool empty() const { return count_ == 0; }
  size_t bytes() const { return bytes_; }
  size_t slices() const { return count_; }

  Slice& front() { return at(0); }  // REQUIRES: not empty
  Slice& back() { return at(count_ - 1); }

  void push(Slice slice) {
    if (count_ == capacity_) grow();
    bytes_ += slice.size;
    at(count_++) = std::move(slice);
  }

  // Copies bytes to the end: behind those of the newest page, if it is this queue's alone and has room, and
  // into further pages from `take_page()`. So many small pieces share a page.
  template <typename TakePage>
  void append_copy(const uint8_t* bytes, size_t size, TakePage take_page) {
    while (size > 0) {
      const size_t used = used_of_newest_page();
      if (used == page_size) {
        BufferRef page = take_page();
        const uint8_t* data = page.data();
        push({std::move(page), data, 0});
        continue;
      }
      const size_t part = size < page_size - used ? size : page_size - used;
      std::memcpy(back().buffer.data() + used, bytes, part);
      back().size += static_cast<uint32_t>(part);
      bytes_ += part;
      bytes += part;
      size -= part;
    }
  }

  // Takes `size` bytes off the front slice. REQUIRES: size <= front().size.
  void consume_front(uint32_t size) {
    Slice& slice = front();
    slice.data += size;
    slice.size -= size;
    bytes_ -= size;
    if (slice.size == 0) pop();
  }

  void consume(size_t size) {
    while (size > 0) {
      const auto part = static_cast<uint32_t>(size < front().size ? size : front().size);
      consume_front(part);
      size -= part;
    }
  }

  // Describes up to `size` bytes from the front in `out`; returns the entries used, and in `size` the bytes
  // they cover.
  int gather(iovec* out, int entries, size_t& size) {
    int used = 0;
    size_t covered = 0;
    for (size_t i = 0; i < count_ && used < entries && covered < size; ++i) {
      const Slice& slice = at(i);
      const size_t part = slice.size < size - covered ? slice.size : size - covered;
      out[used++] = {const_cast<uint8_t*>(slice.data), part};
      covered += part;
    }
    size = covered;
    return used;
  }

  // Copies up to `size` bytes from the front without taking them; returns the bytes copied.
  size_t copy(uint8_t* out, size_t size) {
    size_t copied = 0;
    for (size_t i = 0; i < count_ && copied < size; ++i) {
      const Slice& slice = at(i);
      const size_t part = slice.size < size - copied ? slice.size : size - copied;
      std::memcpy(out + copied, slice.data, part);
      copied += part;
    }
    return copied;
  }

  void clear() {
    while (!empty()) pop();
    bytes_ = 0;
  }

 private:
  // Slices (384 bytes); a larger ring is given back, because thousands of idle streams would each keep
  // theirs.
  static constexpr size_t kept_when_empty = 16;

  // Bytes up to the end of the newest slice, those consumed already included; page_size: nothing may follow.
  size_t used_of_newest_page() {
    if (empty() || !back().buffer || back().buffer.capacity() != page_size || !back().buffer.unique())
      return page_size;
    return static_cast<size_t>(back().data + back().size - back().buffer.data());
  }

  Slice& at(size_t index) { return ring_[(head_ + index) & (capacity_ - 1)]; }

  void pop() {
    front() = Slice{};
    head_ = (head_ + 1) & (capacity_ - 1);
    if (--count_ == 0 && capacity_ > kept_when_empty) {
      ring_.reset();
      capacity_ = head_ = 0;
    }
  }

  void grow() {
    const size_t larger = capacity_ == 0 ? 4 : capacity_ * 2;
    auto ring = std::make_unique<Slice[]>(larger);
    for (size_t i = 0; i < count_; ++i) ring[i] = std::move(at(i));
    ring_ = std::move(ring);
    capacity_ = larger;
    head_ = 0;
  }

  std::unique_ptr<Slice[]> ring_;
  size_t capacity_ = 0;  // 0 or a power of two
  size_t head_ = 0;
  size_t count_ = 0;
  size_t bytes_ = 0;
};

}  // namespace nvsock
