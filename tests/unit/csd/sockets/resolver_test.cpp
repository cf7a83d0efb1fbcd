// Names against a name server of the test's own: those that begin with "good" or "none" it knows, or knows
// not to exist; to others it is silent.
#include "csd/sockets/resolver.hpp"

#include <malloc.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using csd::Client;
using csd::Resolver;
using csd::SocketAddresses;
using namespace std::chrono_literals;

constexpr Client one{1};
constexpr Client another{2};

class NameServer {
 public:
  NameServer() : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port = ntohs(address.sin_port);
  }
  ~NameServer() { close(fd_); }

  // Takes the questions there are. The address of "good" names is 127.0.0.7, and no IPv6 address.
  void serve() {
    std::array<uint8_t, 512> bytes{};
    sockaddr_in from{};
    socklen_t size = sizeof from;
    ssize_t got = 0;
    while ((got = recvfrom(fd_, bytes.data(), 400, 0, reinterpret_cast<sockaddr*>(&from), &size)) > 12) {
      ++questions;
      const bool exists = std::memcmp(&bytes[13], "good", 4) == 0;
      if (!exists && std::memcmp(&bytes[13], "none", 4) != 0) continue;
      auto end = static_cast<size_t>(got);
      bytes[2] = 0x81;                  // an answer, recursion desired
      bytes[3] = exists ? 0x80 : 0x83;  // and available; no such name
      if (exists && bytes[end - 3] == 1) {
        bytes[7] = 1;  // one address
        const uint8_t answer[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4, 127, 0, 0, 7};
        std::ranges::copy(answer, bytes.begin() + static_cast<std::ptrdiff_t>(end));
        end += sizeof answer;
      }
      EXPECT_GT(sendto(fd_, bytes.data(), end, 0, reinterpret_cast<sockaddr*>(&from), size), 0);
    }
  }

  uint16_t port = 0;
  uint8_t ttl = 60;
  unsigned questions = 0;

 private:
  const int fd_;
};

struct Asking final : Resolver::Asker {
  void on_resolved(int code, const SocketAddresses& found) override {
    ++told;
    error = code;
    addresses = found;
    if (then) then();
  }
  using Asker::withdraw;

  unsigned told = 0;
  int error = -1;
  SocketAddresses addresses;
  std::function<void()> then;
};

size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

class ResolverTest : public ::testing::Test {
 protected:
  ResolverTest() {
    char path[] = "/tmp/nvsock-resolv-XXXXXX";
    const int fd = mkstemp(path);
    EXPECT_GE(fd, 0);
    close(fd);
    config = path;
    std::ofstream(config) << "nameserver 127.0.0.1\noptions timeout:60\n";
    auto own = csd::NetworkNamespace::open("");
    EXPECT_TRUE(own);
    resolver.emplace(loop, std::make_shared<const csd::NetworkNamespace>(std::move(*own)),
                     csd::NameServers{.resolv_conf = config, .port = server.port});
  }
  ~ResolverTest() override { std::filesystem::remove(config); }

  void ask(Asking& asking, const std::string& node, Client client = one) {
    resolver->resolve(client, {.type = {}, .family = {}, .port = 80, .node = node}, asking);
  }
  // So many names that nobody answers.
  void hang(size_t count, Client client = one) {
    for (size_t i = 0; i < count; ++i) {
      hanging.push_back(std::make_unique<Asking>());
      ask(*hanging.back(), "hang" + std::to_string(hanging.size()) + ".test", client);
    }
  }
  size_t told() const {
    return static_cast<size_t>(
        std::ranges::count_if(hanging, [](const auto& asking) { return asking->told; }));
  }
  // What one test may wait for with names that hang for a minute.
  bool soon(const std::function<bool()>& done) {
    return test::run_until(
        loop,
        [&] {
          server.serve();
          return done();
        },
        2s);
  }
  bool answered(Asking& asking) {
    return soon([&] { return asking.told != 0; });
  }
  void settle() {
    for (int i = 0; i < 20; ++i) {
      loop.restart();
      loop.poll();
      server.serve();
    }
  }

  asio::io_context loop;
  NameServer server;
  std::string config;
  std::optional<Resolver> resolver;
  std::vector<std::unique_ptr<Asking>> hanging;
};

TEST_F(ResolverTest, a_name_server_is_asked) {
  Asking asking;
  ask(asking, "good.test");
  EXPECT_EQ(asking.told, 0u) << "told from within";
  ASSERT_TRUE(answered(asking));
  EXPECT_EQ(asking.error, 0);
  ASSERT_EQ(asking.addresses.size(), 1u);
  const auto& address = reinterpret_cast<const sockaddr_in&>(asking.addresses[0].bytes);
  EXPECT_EQ(ntohl(address.sin_addr.s_addr), 0x7f000007u);
  EXPECT_EQ(address.sin_port, 0);
}

TEST_F(ResolverTest, names_that_hang_do_not_delay_localhost) {
  hang(Resolver::max_asked + Resolver::max_waiting);
  settle();
  for (const Client client : {one, another}) {
    Asking asking;
    ask(asking, "localhost", client);
    ASSERT_TRUE(answered(asking)) << "of client " << static_cast<uint64_t>(client);
    EXPECT_EQ(asking.error, 0);
  }
  EXPECT_EQ(told(), 0u);
}

TEST_F(ResolverTest, names_of_one_client_that_hang_do_not_delay_anothers) {
  hang(2 * (Resolver::max_asked + Resolver::max_waiting));
  Asking asking;
  ask(asking, "good.test", another);
  EXPECT_TRUE(answered(asking));
  EXPECT_EQ(asking.error, 0);
}

TEST_F(ResolverTest, a_client_that_asks_for_too_many_is_told_at_once) {
  constexpr size_t most = Resolver::max_asked + Resolver::max_waiting;
  hang(most + 10);
  ASSERT_TRUE(soon([&] { return told() == 10; }));
  EXPECT_EQ(hanging[most]->error, ENOBUFS);
  EXPECT_EQ(hanging[most - 1]->told, 0u);
}

TEST_F(ResolverTest, the_place_of_a_name_taken_back_goes_to_one_that_waits) {
  hang(Resolver::max_asked);
  Asking first;
  Asking second;
  ask(first, "good1.test");
  ask(second, "good2.test");
  settle();
  EXPECT_EQ(first.told, 0u);
  hanging.front().reset();
  EXPECT_TRUE(answered(first));
  EXPECT_TRUE(answered(second)) << "an answer frees a place too";
}

TEST_F(ResolverTest, a_name_answered_lately_does_not_wait) {
  Asking before;
  ask(before, "good.test");
  ASSERT_TRUE(answered(before));
  hang(Resolver::max_asked + Resolver::max_waiting);
  settle();
  const unsigned questions = server.questions;
  Asking again;
  ask(again, "good.test");
  ASSERT_TRUE(answered(again));
  EXPECT_EQ(again.error, 0);
  EXPECT_EQ(again.addresses.size(), 1u);
  EXPECT_EQ(server.questions, questions);
}

TEST_F(ResolverTest, what_a_server_wants_forgotten_is_asked_again) {
  server.ttl = 0;
  for (const unsigned questions : {2u, 4u}) {  // an IPv4 and an IPv6 address
    Asking asking;
    ask(asking, "good.test");
    ASSERT_TRUE(answered(asking));
    EXPECT_EQ(server.questions, questions);
  }
}

TEST_F(ResolverTest, askers_of_one_name_share_the_question) {
  Asking askers[100];
  for (Asking& asking : askers) ask(asking, "good.test");
  askers[3].withdraw();
  ASSERT_TRUE(answered(askers[99]));
  EXPECT_EQ(server.questions, 2u);
  EXPECT_EQ(askers[0].told, 1u);
  EXPECT_EQ(askers[3].told, 0u);
}

TEST_F(ResolverTest, names_taken_back_leave_nothing) {
  const auto ask_and_go = [&](size_t count, bool begun) {
    for (size_t i = 0; i < count; ++i) {
      Asking asking;
      ask(asking, "hang" + std::to_string(i) + ".test");
      if (begun) settle();
    }
    settle();
  };
  ask_and_go(100, true);
  const size_t memory = mallinfo2().uordblks;  // 0 under a sanitizer, which looks for itself
  const size_t descriptors = open_descriptors();
  const unsigned questions = server.questions;
  ask_and_go(100'000, false);
  EXPECT_EQ(server.questions, questions) << "asked for nobody";
  ask_and_go(500, true);
  EXPECT_GT(server.questions, questions);
  EXPECT_LE(mallinfo2().uordblks, memory + 4096);
  EXPECT_EQ(open_descriptors(), descriptors);
}

TEST_F(ResolverTest, the_resolver_may_go_with_names_in_every_state) {
  hang(Resolver::max_asked + 10);
  settle();
  hang(10);
  resolver.reset();
  settle();
  EXPECT_EQ(told(), 0u);
}

TEST_F(ResolverTest, who_is_told_may_end_the_others_and_the_resolver) {
  Asking first;
  auto second = std::make_unique<Asking>();
  ask(first, "good.test");
  ask(*second, "good.test");
  hang(10);
  first.then = [&] {
    second.reset();
    resolver.reset();
  };
  EXPECT_TRUE(answered(first));
  EXPECT_FALSE(second);
  settle();
}

TEST_F(ResolverTest, a_name_that_does_not_exist_cannot_be_resolved_and_is_asked_again) {
  for (const unsigned questions : {2u, 4u}) {
    Asking asking;
    ask(asking, "none.test");
    ASSERT_TRUE(answered(asking));
    EXPECT_EQ(asking.error, EHOSTUNREACH);
    EXPECT_TRUE(asking.addresses.empty());
    EXPECT_EQ(server.questions, questions);
  }
}

TEST_F(ResolverTest, numbers_are_addresses_with_a_port_and_a_scope) {
  const auto found =
      resolver->numeric({.type = {}, .family = relay_v2::Family::ipv6, .port = 80, .node = "fe80::1%lo"});
  ASSERT_EQ(found.size(), 1u);
  const auto& address = reinterpret_cast<const sockaddr_in6&>(found[0].bytes);
  EXPECT_NE(address.sin6_scope_id, 0u);
  EXPECT_EQ(ntohs(address.sin6_port), 80);
  EXPECT_TRUE(resolver->numeric({.type = {}, .family = {}, .port = 80, .node = "localhost"}).empty());
}

}  // namespace
}  // namespace nvsock
