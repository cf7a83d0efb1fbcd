// What clients and server of the benchmark speak, the same over every transport.
//
// A client opens a connection and sends one Request. Then:
//   echo    the server returns every byte, until the client closes.
//   sink    the client sends blocks; after the last one the server answers their bytes as a uint64_t.
//   source  the server sends blocks for the time asked for, then their bytes as a uint64_t.
// Blocks have the size the Request names, and the first byte of each says whether another one follows. The
// end is thus part of the data: it needs no half-close, which a plain file does not have, and no count known
// beforehand. Integers are in host byte order: both ends run on one host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "libnvsock/base/result.hpp"

namespace bench {

enum class Work : uint8_t { echo = 'E', sink = 'S', source = 'O' };

struct Request {
  Work work = Work::echo;
  uint8_t pad[3] = {};
  uint32_t block = 0;         // bytes, 1 to max_block; ignored by echo
  uint32_t milliseconds = 0;  // how long a source sends; at most max_milliseconds
};

inline constexpr uint32_t max_block = 1 << 20;         // the largest operation measured
inline constexpr uint32_t max_milliseconds = 600'000;  // keeps a stray request from running for ever

inline constexpr std::byte block_more{0xA5};  // unlikely by accident, so that a lost byte is noticed
inline constexpr std::byte block_last{0x5A};

// Follows the blocks of one connection, however they were cut by the transport.
class BlockCounter {
 public:
  explicit BlockCounter(uint32_t block) : block_(block) {}

  // Takes received bytes; returns how many belong to the blocks, fewer than given when the last block ended.
  // EBADMSG: a block does not begin as one, so bytes were lost, doubled or changed.
  nvsock::Result<size_t> take(std::span<const std::byte> data);
  bool ended() const { return last_ && position_ == 0; }
  uint64_t total() const { return total_; }  // bytes taken

 private:
  uint32_t block_;
  uint32_t position_ = 0;  // within the current block
  bool last_ = false;
  uint64_t total_ = 0;
};

}  // namespace bench
