// The one namespace of a CSD that is on the network: blocks in memory, or in a file.
//
// Linux wants a namespace to make a block device of; nothing of the relay protocol needs it. A file is
// mapped, after its blocks were allocated, so that reading and writing are copies; flushing it blocks and has
// a thread of its own. Threads: event loop only.
#pragma once

#include <asio/io_context.hpp>
#include <asio/thread_pool.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "libnvsock/base/result.hpp"

namespace nvsock::csd {

class Namespace {
 public:
  static constexpr uint32_t block_size = 512;

  // `size` bytes, at least one block, rounded down to whole blocks. `file`: empty for memory; made, or grown
  // to that size; 0 takes the size it has. ENOSPC when there is no room for all blocks.
  static Result<std::unique_ptr<Namespace>> open(asio::io_context& loop, const std::string& file,
                                                 uint64_t size);
  ~Namespace();
  Namespace(const Namespace&) = delete;
  Namespace& operator=(const Namespace&) = delete;

  uint64_t blocks() const { return bytes_.size() / block_size; }
  bool persistent() const { return file_ >= 0; }
  // REQUIRES: within blocks().
  std::span<uint8_t> at(uint64_t block, uint64_t count) {
    return bytes_.subspan(block * block_size, count * block_size);
  }
  // Calls back when all that was written is on the medium; from within if nothing has to be done. The
  // argument is 0 or an errno.
  void flush(std::function<void(int)> done);

 private:
  Namespace(asio::io_context& loop, int file, std::span<uint8_t> bytes)
      : loop_(loop), file_(file), bytes_(bytes) {}

  asio::io_context& loop_;
  const int file_;  // -1: memory
  const std::span<uint8_t> bytes_;
  std::optional<asio::thread_pool> flusher_;  // of a file, from the first flush on
};

}  // namespace nvsock::csd
