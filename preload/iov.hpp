// Walks an iovec array as one run of bytes. The array and its memory are the caller's, and outlive the
// cursor.
//
// Threads: any, signal handlers too; an object belongs to one.
#pragma once

#include <string.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstddef>

namespace nvsock::preload {

class IovCursor {
 public:
  IovCursor(const iovec* iov, std::size_t count) : iov_(iov), count_(count) {
    for (std::size_t i = 0; i < count; ++i) left_ += iov[i].iov_len;
    skip_empty();
  }

  std::size_t left() const { return left_; }

  // The next bytes that lie together; empty at the end.
  iovec piece() const {
    if (count_ == 0) return {nullptr, 0};
    return {static_cast<char*>(iov_->iov_base) + used_, iov_->iov_len - used_};
  }

  // REQUIRES: n <= piece().iov_len.
  void advance(std::size_t n) {
    used_ += n;
    left_ -= n;
    skip_empty();
  }

  // Copies the next bytes out, or in: `size` of them, or what is left.
  void gather(void* to, std::size_t size) {
    each_piece(size, [to = static_cast<char*>(to)](void* piece, std::size_t n) mutable {
      memcpy(to, piece, n);
      to += n;
    });
  }
  void scatter(const void* from, std::size_t size) {
    each_piece(size, [from = static_cast<const char*>(from)](void* piece, std::size_t n) mutable {
      memcpy(piece, from, n);
      from += n;
    });
  }

 private:
  void skip_empty() {
    while (count_ != 0 && used_ == iov_->iov_len) {
      ++iov_;
      --count_;
      used_ = 0;
    }
  }

  template <typename Use>
  void each_piece(std::size_t size, Use use) {
    while (size != 0 && count_ != 0) {
      const iovec next = piece();
      const std::size_t n = std::min(size, next.iov_len);
      use(next.iov_base, n);
      advance(n);
      size -= n;
    }
  }

  const iovec* iov_;
  std::size_t count_;
  std::size_t used_ = 0;  // of *iov_
  std::size_t left_ = 0;
};

}  // namespace nvsock::preload
