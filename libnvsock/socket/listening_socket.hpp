// A listening socket of this host by its address as people write it: over TCP, a unix socket or AF_VSOCK.
//
// Threads: any. Never blocks.
#pragma once

#include <sys/socket.h>
#include <sys/stat.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "libnvsock/base/result.hpp"

namespace nvsock {

struct ListenOptions {
  int backlog = 64;
  bool only_ipv6 = false;             // [::] leaves IPv4 to another socket
  std::optional<mode_t> unix_mode{};  // of the socket's file; without it the umask decides
};

class ListeningSocket {
 public:
  // `address`: ADDRESS:PORT (port 0: any that is free), unix:PATH, whose socket is made, or vsock:CID:PORT,
  // with CID a number or "any". A unix socket on which nobody listens is what a program that was killed has
  // left, and is replaced; EADDRINUSE when somebody does. Errors come with a sentence that names the address.
  static Result<ListeningSocket> open(std::string_view address, const ListenOptions& options);
  ListeningSocket(ListeningSocket&& other) noexcept;
  ListeningSocket& operator=(ListeningSocket&&) = delete;
  ~ListeningSocket();  // removes the unix socket's name

  // Non-blocking and close-on-exec; the caller's from now on. Once.
  int take_fd() { return std::exchange(fd_, -1); }
  const std::string& text() const { return text_; }  // the address, with the port that was chosen

 private:
  ListeningSocket(int fd, std::string text, std::string unix_path)
      : fd_(fd), text_(std::move(text)), unix_path_(std::move(unix_path)) {}

  int fd_;
  std::string text_;
  std::string unix_path_;  // to be removed
};

// "127.0.0.1:22", "[::1]:22", "vsock:3:1024", "unix".
std::string address_text(const sockaddr_storage& address);

}  // namespace nvsock
