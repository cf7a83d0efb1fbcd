// What was accepted for services and is not theirs yet: how much, and of how many connections.
#pragma once

#include <cstdint>

namespace nvsock {

struct Undelivered {
  uint64_t bytes = 0;
  uint64_t connections = 0;

  void add(uint64_t of_connection) {
    if (of_connection == 0) return;
    bytes += of_connection;
    ++connections;
  }
  Undelivered& operator+=(const Undelivered& other) {
    bytes += other.bytes;
    connections += other.connections;
    return *this;
  }
  Undelivered operator-(const Undelivered& earlier) const {
    return {.bytes = bytes - earlier.bytes, .connections = connections - earlier.connections};
  }
  bool none() const { return connections == 0; }
};

// Of a drive, with what it has taken from its hosts.
struct Delivery {
  Undelivered waiting;  // on its way to services that are slow
  Undelivered
      given_up;  // never delivered, since the drive started: connections that were closed in good order
};

}  // namespace nvsock
