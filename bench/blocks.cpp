#include "bench/blocks.hpp"

#include <algorithm>
#include <cerrno>
#include <string>

namespace bench {

nvsock::Result<size_t> BlockCounter::take(std::span<const std::byte> data) {
  size_t taken = 0;
  while (taken < data.size() && !ended()) {
    if (position_ == 0) {
      if (data[taken] != block_more && data[taken] != block_last)
        return nvsock::Error{EBADMSG,
                             "byte " + std::to_string(total_) + " does not begin a block: data was lost"};
      last_ = data[taken] == block_last;
    }
    const auto step = static_cast<uint32_t>(std::min<size_t>(block_ - position_, data.size() - taken));
    position_ = (position_ + step) % block_;
    taken += step;
    total_ += step;
  }
  return taken;
}

}  // namespace bench
