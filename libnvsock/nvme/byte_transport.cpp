#include "libnvsock/nvme/byte_transport.hpp"

#include <sys/socket.h>

#include <cerrno>

namespace nvsock {
namespace {

class PlainTransport final : public ByteTransport {
 public:
  explicit PlainTransport(int fd) : fd_(fd) {}

  bool sends(bool any) const override { return any; }

  ssize_t send(std::span<const iovec> parts) override {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts.data());
    message.msg_iovlen = parts.size();
    ssize_t size = 0;
    do size = sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    return size;
  }

  ssize_t receive(std::span<const iovec> parts) override {
    ssize_t size = 0;
    do size = readv(fd_, parts.data(), static_cast<int>(parts.size()));
    while (size < 0 && errno == EINTR);
    return size;
  }

  const std::string& failure() const override {
    static const std::string none;
    return none;
  }

 private:
  const int fd_;
};

}  // namespace

std::unique_ptr<ByteTransport> make_plain_transport(int fd) {
  return std::make_unique<PlainTransport>(fd);
}

}  // namespace nvsock
