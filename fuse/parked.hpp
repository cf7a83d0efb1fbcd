// Requests that wait for the drive, in lists: what a blocked program is.
//
// Threads: event loop only. Everything runs on that thread, so being in a list *is* the claim on a request.
#pragma once

#include <fuse_lowlevel.h>

#include <chrono>
#include <memory>
#include <vector>

#include "libnvsock/base/buffer.hpp"

namespace csdfs {

class Connection;

struct Parked {
  fuse_req_t request = nullptr;
  Connection* owner = nullptr;
  size_t size = 0;       // bytes asked for, or to write
  nvsock::Slice data{};  // writes: what is left
  size_t done = 0;       // writes: bytes the stream took
  std::chrono::steady_clock::time_point deadline{};
  Parked* next = nullptr;
};

// First-in, first-out; short, because each entry is a thread of some program. Owns nothing.
class ParkedList {
 public:
  bool empty() const { return head_ == nullptr; }
  Parked* front() const { return head_; }
  void push(Parked* entry);
  bool remove(Parked* entry);  // false: not in this list

 private:
  Parked* head_ = nullptr;
  Parked* tail_ = nullptr;
};

// Parked requests to use again: most reads are parked, and none should cost an allocation.
class ParkedPool {
 public:
  Parked* take();  // is given back
  void give_back(Parked* entry);

 private:
  static constexpr size_t kept = 256;  // some 24 KiB
  std::vector<std::unique_ptr<Parked>> free_;
};

}  // namespace csdfs
