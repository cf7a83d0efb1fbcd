// epoll registrations made before connect().
//
// A registration belongs to the open file, not to the number: when dup3() puts the mount file in the
// socket's place, the kernel drops it without a word, and an event loop that registered first (Boost.Asio,
// nginx) waits for ever. /proc tells which epoll descriptors of this process hold the socket, for which
// events and with which data; afterwards the same is added again.
//
// The cost is a look at every open descriptor, about 1 us each, on each routed connect().
//
// Threads: any; an object belongs to one. What another thread registers between find() and restore() is lost.
// Nothing is told of failure: a registration that cannot be found or made again is one that is gone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nvsock::preload {

class EpollRegistrations {
 public:
  void find(int fd);           // before dup3()
  void restore(int fd) const;  // after it; level, edge and one-shot triggers report what is ready now

 private:
  static constexpr std::size_t kMaxRegistrations = 8;  // one is the rule; more need one epoll each
  void read_epoll(int epoll, int fd, std::uint64_t inode);

  struct Registration {
    int epoll;
    std::uint32_t events;
    std::uint64_t data;
  };
  Registration found_[kMaxRegistrations];
  std::size_t count_ = 0;
};

}  // namespace nvsock::preload
