// Socket options of a connection file, compared with what a TCP socket of this kernel does where it matters.
#include "fuse/socket_options.hpp"

#include <netinet/tcp.h>

#include <cstring>

#include "tests/unit/support.hpp"

namespace csdfs {
namespace {

template <typename T>
nvsock_option option(int level, int name, const T& value, uint32_t length = sizeof(T)) {
  nvsock_option out{level, name, length, 0, {}};
  std::memcpy(out.value, &value, sizeof value);
  return out;
}

class SocketOptionsTest : public ::testing::Test {
 protected:
  int set(int level, int name, int value) { return options.set(option(level, name, value)); }
  int get(int level, int name) {
    nvsock_option out = option(level, name, -1);
    EXPECT_EQ(options.get(out), 0);
    EXPECT_EQ(out.length, sizeof(int));
    int value = 0;
    std::memcpy(&value, out.value, sizeof value);
    return value;
  }

  SocketOptions options;
};

TEST_F(SocketOptionsTest, fresh_options_are_those_of_a_tcp_socket) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const nvsock::test::Peer real(fd);
  for (const auto& [level, name] : {std::pair{SOL_SOCKET, SO_KEEPALIVE},
                                    {SOL_SOCKET, SO_REUSEADDR},
                                    {SOL_SOCKET, SO_OOBINLINE},
                                    {SOL_SOCKET, SO_RCVLOWAT},
                                    {SOL_SOCKET, SO_PRIORITY},
                                    {IPPROTO_IP, IP_TOS},
                                    {IPPROTO_IP, IP_TTL},
                                    {IPPROTO_TCP, TCP_NODELAY},
                                    {IPPROTO_TCP, TCP_CORK},
                                    {IPPROTO_TCP, TCP_QUICKACK},
                                    {IPPROTO_TCP, TCP_KEEPIDLE},
                                    {IPPROTO_TCP, TCP_KEEPINTVL},
                                    {IPPROTO_TCP, TCP_KEEPCNT},
                                    {IPPROTO_TCP, TCP_SYNCNT},
                                    {IPPROTO_TCP, TCP_USER_TIMEOUT}}) {
    int value = -1;
    socklen_t size = sizeof value;
    ASSERT_EQ(getsockopt(fd, level, name, &value, &size), 0);
    EXPECT_EQ(get(level, name), value) << "level " << level << " name " << name;
  }
}

TEST_F(SocketOptionsTest, what_was_set_last_is_told) {
  EXPECT_EQ(set(IPPROTO_TCP, TCP_KEEPIDLE, 17), 0);
  EXPECT_EQ(set(IPPROTO_TCP, TCP_KEEPINTVL, 18), 0);
  EXPECT_EQ(set(IPPROTO_TCP, TCP_KEEPIDLE, 19), 0);
  EXPECT_EQ(get(IPPROTO_TCP, TCP_KEEPIDLE), 19);
  EXPECT_EQ(get(IPPROTO_TCP, TCP_KEEPINTVL), 18);
}

TEST_F(SocketOptionsTest, flags_are_0_or_1) {
  EXPECT_EQ(set(IPPROTO_TCP, TCP_NODELAY, 77), 0);
  EXPECT_EQ(get(IPPROTO_TCP, TCP_NODELAY), 1);
  EXPECT_EQ(set(IPPROTO_TCP, TCP_NODELAY, 0), 0);
  EXPECT_EQ(get(IPPROTO_TCP, TCP_NODELAY), 0);
}

TEST_F(SocketOptionsTest, buffer_sizes_are_told_doubled_and_bounded) {
  for (const int name : {SO_SNDBUF, SO_RCVBUF}) {
    EXPECT_EQ(set(SOL_SOCKET, name, 20000), 0);
    EXPECT_EQ(get(SOL_SOCKET, name), 40000);
    EXPECT_EQ(set(SOL_SOCKET, name, INT32_MAX), 0);
    EXPECT_EQ(get(SOL_SOCKET, name), 8 << 20);
    EXPECT_EQ(set(SOL_SOCKET, name, -1), 0);
    EXPECT_GT(get(SOL_SOCKET, name), 0);
  }
}

TEST_F(SocketOptionsTest, timeouts_are_told_and_obeyed) {
  EXPECT_EQ(options.receive_timeout().tv_sec, 0);
  EXPECT_EQ(options.set(option(SOL_SOCKET, SO_RCVTIMEO, timeval{3, 500'000})), 0);
  EXPECT_EQ(options.receive_timeout().tv_sec, 3);
  EXPECT_EQ(options.receive_timeout().tv_usec, 500'000);
  EXPECT_EQ(options.send_timeout().tv_sec, 0);
  EXPECT_EQ(options.set(option(SOL_SOCKET, SO_SNDTIMEO, timeval{4, 0})), 0);
  EXPECT_EQ(options.send_timeout().tv_sec, 4);
  nvsock_option out = option(SOL_SOCKET, SO_RCVTIMEO, timeval{});
  EXPECT_EQ(options.get(out), 0);
  EXPECT_EQ(out.length, sizeof(timeval));
  timeval value{};
  std::memcpy(&value, out.value, sizeof value);
  EXPECT_EQ(value.tv_sec, 3);
}

TEST_F(SocketOptionsTest, impossible_microseconds_are_edom_and_change_nothing) {
  EXPECT_EQ(options.set(option(SOL_SOCKET, SO_RCVTIMEO, timeval{3, 0})), 0);
  for (const long usec : {-1L, 1'000'000L}) {
    EXPECT_EQ(options.set(option(SOL_SOCKET, SO_RCVTIMEO, timeval{9, usec})), EDOM);
  }
  EXPECT_EQ(options.receive_timeout().tv_sec, 3);
}

TEST_F(SocketOptionsTest, options_of_ip_alone_may_be_one_byte) {
  EXPECT_EQ(options.set(option(IPPROTO_IP, IP_TOS, uint8_t{0x10})), 0);
  nvsock_option out = option(IPPROTO_IP, IP_TOS, int{0});
  EXPECT_EQ(options.get(out), 0);
  int value = 0;
  std::memcpy(&value, out.value, sizeof value);
  EXPECT_EQ(value, 0x10);
  EXPECT_EQ(options.set(option(IPPROTO_TCP, TCP_NODELAY, uint8_t{1})), EINVAL);
}

TEST_F(SocketOptionsTest, negative_seconds_are_told_as_zero) {
  EXPECT_EQ(options.set(option(SOL_SOCKET, SO_RCVTIMEO, timeval{-5, 0})), 0);
  EXPECT_EQ(options.receive_timeout().tv_sec, 0);
}

TEST_F(SocketOptionsTest, linger_is_told_whole) {
  EXPECT_EQ(options.set(option(SOL_SOCKET, SO_LINGER, linger{1, 30})), 0);
  nvsock_option out = option(SOL_SOCKET, SO_LINGER, linger{});
  EXPECT_EQ(options.get(out), 0);
  linger value{};
  std::memcpy(&value, out.value, sizeof value);
  EXPECT_EQ(value.l_onoff, 1);
  EXPECT_EQ(value.l_linger, 30);
}

TEST_F(SocketOptionsTest, congestion_control_is_a_text_of_any_length) {
  nvsock_option out{IPPROTO_TCP, TCP_CONGESTION, 16, 0, {}};
  EXPECT_EQ(options.get(out), 0);
  EXPECT_STREQ(reinterpret_cast<char*>(out.value), "cubic");
  EXPECT_EQ(options.set(option(IPPROTO_TCP, TCP_CONGESTION, "bbr", 3)), 0);
  EXPECT_EQ(options.get(out), 0);
  EXPECT_STREQ(reinterpret_cast<char*>(out.value), "bbr");
  nvsock_option longest{IPPROTO_TCP, TCP_CONGESTION, NVSOCK_OPTION_MAX, 0, {}};
  std::memset(longest.value, 'x', sizeof longest.value);
  EXPECT_EQ(options.set(longest), 0);  // what does not fit is dropped
  out.length = NVSOCK_OPTION_MAX;
  EXPECT_EQ(options.get(out), 0);
  EXPECT_EQ(out.length, 16u);
}

TEST_F(SocketOptionsTest, a_shorter_length_truncates_the_answer) {
  ASSERT_EQ(set(IPPROTO_TCP, TCP_KEEPIDLE, 0x01020304), 0);
  nvsock_option out = option(IPPROTO_TCP, TCP_KEEPIDLE, -1, 2);
  EXPECT_EQ(options.get(out), 0);
  EXPECT_EQ(out.length, 2u);
  EXPECT_EQ(out.value[0], 0x04);
  EXPECT_EQ(out.value[2], 0xff) << "not written";
  out.length = 0;
  EXPECT_EQ(options.get(out), 0);
  EXPECT_EQ(out.length, 0u);
}

TEST_F(SocketOptionsTest, a_value_that_is_too_short_or_too_long_is_einval) {
  EXPECT_EQ(options.set(option(IPPROTO_TCP, TCP_NODELAY, 1, 3)), EINVAL);
  EXPECT_EQ(options.set(option(SOL_SOCKET, SO_LINGER, linger{1, 1}, sizeof(int))), EINVAL);
  EXPECT_EQ(options.set(option(SOL_SOCKET, SO_RCVTIMEO, timeval{1, 1}, sizeof(timeval) - 1)), EINVAL);
  EXPECT_EQ(options.set(option(IPPROTO_TCP, TCP_NODELAY, 1, NVSOCK_OPTION_MAX + 1)), EINVAL);
  EXPECT_EQ(options.set(option(IPPROTO_TCP, TCP_NODELAY, 1, UINT32_MAX)), EINVAL);
  EXPECT_EQ(get(IPPROTO_TCP, TCP_NODELAY), 0);
}

TEST_F(SocketOptionsTest, unknown_options_are_enoprotoopt) {
  EXPECT_EQ(set(SOL_SOCKET, 9999, 1), ENOPROTOOPT);
  EXPECT_EQ(set(IPPROTO_UDP, TCP_NODELAY, 1), ENOPROTOOPT);
  nvsock_option out = option(SOL_SOCKET, 9999, 1);
  EXPECT_EQ(options.get(out), ENOPROTOOPT);
}

}  // namespace
}  // namespace csdfs
