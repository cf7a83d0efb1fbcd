// The sessions that have ended last, so that a late copy of an attach does not begin one anew
// (docs/relay-protocol.md section 3).
//
// Remembered are the last 16 of each of the last 64 hosts that ended any: what one host does makes a drive
// forget nothing of another, and hosts are far fewer than 64 at a time. Threads: one.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>

#include "csd/base/host_name.hpp"

namespace nvsock::csd {

class EndedSessions {
 public:
  static constexpr size_t of_each_host = 16;
  static constexpr size_t max_hosts = 64;

  void add(const HostName& host, uint64_t handle) {
    Host last{.name = host};
    if (const auto known = find(host); known != hosts_.end()) {
      last = std::move(*known);
      hosts_.erase(known);
    } else if (hosts_.size() == max_hosts) {
      hosts_.pop_front();
    }
    last.handles[last.next++ % of_each_host] = handle;
    hosts_.push_back(std::move(last));
  }
  bool contains(const HostName& host, uint64_t handle) {
    const auto known = find(host);
    return known != hosts_.end() && std::ranges::find(known->handles, handle) != known->handles.end();
  }

 private:
  struct Host {
    HostName name;
    std::array<uint64_t, of_each_host> handles{};  // 0, which no session has: none
    size_t next = 0;
  };
  std::deque<Host>::iterator find(const HostName& host) {
    return std::ranges::find(hosts_, host, &Host::name);
  }

  std::deque<Host> hosts_;  // who ended one last is last
};

}  // namespace nvsock::csd
