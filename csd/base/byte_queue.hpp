// Bytes or datagrams from the host that a service has not taken yet. The owner bounds them. An empty queue
// holds no memory. Threads: any one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "libnvsock/base/bytes.hpp"

namespace nvsock::csd {

class ByteQueue {
 public:
  bool empty() const { return bytes_.size() == taken_; }
  size_t size() const { return bytes_.size() - taken_; }  // with 4 bytes for each datagram

  void append(std::span<const uint8_t> bytes) {
    // Moving only when more was taken than is left costs each byte one move at most, on average.
    if (taken_ > bytes_.size() - taken_) {
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(taken_));
      taken_ = 0;
    }
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  std::span<const uint8_t> front() const { return std::span(bytes_).subspan(taken_); }
  void consume(size_t size) {
    taken_ += size;
    if (empty()) clear();
  }

  // Datagrams are kept with their length before them. One queue holds either bytes or datagrams.
  void append_datagram(std::span<const uint8_t> datagram) {
    uint8_t length[sizeof(uint32_t)];
    store_le(length, static_cast<uint32_t>(datagram.size()));
    append(length);
    append(datagram);
  }
  std::span<const uint8_t> front_datagram() const {  // REQUIRES: not empty
    return front().subspan(sizeof(uint32_t), load_le<uint32_t>(front().data()));
  }
  void pop_datagram() { consume(sizeof(uint32_t) + front_datagram().size()); }

  void clear() {
    std::vector<uint8_t>().swap(bytes_);
    taken_ = 0;
  }

 private:
  std::vector<uint8_t> bytes_;
  size_t taken_ = 0;
};

}  // namespace nvsock::csd
