// The numbers under which one side opens streams and listeners, and when each may be used again
// (docs/relay-protocol.md section 7). Both sides have one: of the host odd numbers, of the drive even ones.
//
// A number that was closed waits until the other side has told that it took the last batch with a frame of
// the old stream: whatever still comes was sent knowing that it is closed, and is of the new one. Numbers are
// used again before new ones are, so that they stay as few as the streams at a time and those that wait. The
// owner bounds the latter (most_waiting). Threads: one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace nvsock::relay_v2 {

class StreamNumbers {
 public:
  // More of them than this and the owner should see that the other side tells; twice as many and none is
  // given any more.
  static constexpr size_t most_waiting = 65536;

  explicit StreamNumbers(uint32_t first) : next_(first) {}

  // 0: too many wait.
  uint32_t take() {
    if (!free_.empty()) {
      const uint32_t number = free_.back();
      free_.pop_back();
      return number;
    }
    if (waiting_.size() >= 2 * most_waiting) return 0;
    // Those in use are bounded as streams are, those that wait here: it never comes round.
    const uint32_t number = next_;
    next_ += 2;
    return number;
  }
  // `last`: the batch in which we sent the last frame of it, or a later one that was made.
  void close(uint32_t number, uint64_t last) {
    if (last <= taken_) return free_.push_back(number);
    waiting_.push_back({number, last});
  }
  // The other side has every batch up to this one. REQUIRES: it does not go back.
  void taken(uint64_t batch) {
    taken_ = batch;
    for (; !waiting_.empty() && waiting_.front().last <= batch; waiting_.pop_front())
      free_.push_back(waiting_.front().number);
  }

  size_t waiting() const { return waiting_.size(); }
  // Was it ever given? REQUIRES: it is odd or even, as they all are.
  bool used(uint32_t number) const { return number < next_; }

 private:
  struct Waiting {
    uint32_t number;
    uint64_t last;
  };
  std::deque<Waiting> waiting_;  // in the order in which they were closed, which is that of their batches
  std::vector<uint32_t> free_;
  uint64_t taken_ = 0;
  uint32_t next_;
};

}  // namespace nvsock::relay_v2
