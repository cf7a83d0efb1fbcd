// Services over real sockets on the loopback: what a session sees of TCP and UDP.
#include "csd/sockets/socket_services.hpp"

#include <cerrno>
#include <functional>
#include <string>

#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using csd::Service;
using relay_v2::Family;

struct Watcher final : Service::Observer {
  void on_connected(int error) override { connected = error; }
  void on_readable() override { readable = true; }
  void on_writable() override { writable = true; }

  int connected = -1;
  bool readable = false;
  bool writable = false;
};

struct Gate final : csd::ServiceListener::Observer {
  void on_accepted(std::unique_ptr<Service> service) override { accepted.push_back(std::move(service)); }
  std::vector<std::unique_ptr<Service>> accepted;
};

uint16_t port_of(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

class SocketServicesTest : public ::testing::Test {
 protected:
  SocketServicesTest() {
    auto own = csd::NetworkNamespace::open("");
    EXPECT_TRUE(own);
    where = std::make_shared<const csd::NetworkNamespace>(std::move(*own));
    services.emplace(loop, where);
  }

  std::unique_ptr<Service> connect(std::string_view node, uint16_t port, SocketType type = SocketType::stream,
                                   Family family = Family::any) {
    watcher = {};
    auto service = services->connect(csd::Client{1},
                                     {.type = type, .family = family, .port = port, .node = node}, watcher);
    EXPECT_EQ(watcher.connected, -1) << "told from within";
    EXPECT_TRUE(run_until([&] { return watcher.connected >= 0; }));
    return service;
  }
  std::unique_ptr<csd::ServiceListener> listen(std::string_view node, uint16_t port = 0) {
    auto listener =
        services->listen({.type = SocketType::stream, .family = {}, .port = port, .node = node}, 5, gate);
    listen_error = listener ? 0 : listener.error().code;
    return listener ? std::move(*listener) : nullptr;
  }
  // A socket of the other side that nobody of ours watches.
  int udp_peer(uint16_t& port, int family = AF_INET) {
    const int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_storage address{};
    address.ss_family = static_cast<sa_family_t>(family);
    socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    if (family == AF_INET) {
      reinterpret_cast<sockaddr_in&>(address).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else {
      reinterpret_cast<sockaddr_in6&>(address).sin6_addr = in6addr_loopback;
    }
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port = port_of(address);
    return fd;
  }
  std::string receive(Service& service, size_t most = 65536) {
    watcher.readable = false;
    service.await_readable();
    EXPECT_TRUE(run_until([&] { return watcher.readable; }));
    std::string bytes(most, '\0');
    const ssize_t size = service.receive({reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()}, datagram);
    result = size;
    bytes.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    return bytes;
  }
  static ssize_t send(Service& service, std::string_view bytes) {
    return service.send({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  }
  bool run_until(const std::function<bool()>& done) { return test::run_until(loop, done); }

  asio::io_context loop;
  std::shared_ptr<const csd::NetworkNamespace> where;
  std::optional<csd::SocketServices> services;
  Watcher watcher;
  Gate gate;
  int listen_error = 0;
  bool datagram = false;
  ssize_t result = 0;
};

void talk(Service& here, Service& there, const std::function<void(Service&)>& await) {
  const uint8_t word[] = {'h', 'i'};
  EXPECT_EQ(here.send(word), 2);
  await(there);
  uint8_t into[10];
  bool is_datagram = true;
  EXPECT_EQ(there.receive(into, is_datagram), 2);
  EXPECT_FALSE(is_datagram);
}

TEST_F(SocketServicesTest, tcp_both_ways_through_a_listener) {
  for (const char* node : {"127.0.0.1", "::1"}) {
    gate.accepted.clear();
    auto listener = listen(node);
    if (!listener && listen_error == EADDRNOTAVAIL) continue;  // no IPv6 here
    ASSERT_TRUE(listener) << node << ": " << listen_error;
    auto client = connect(node, port_of(listener->address()));
    ASSERT_EQ(watcher.connected, 0);
    ASSERT_TRUE(run_until([&] { return !gate.accepted.empty(); }));
    Service& server = *gate.accepted[0];
    EXPECT_EQ(port_of(client->addresses().peer), port_of(listener->address()));
    EXPECT_EQ(port_of(client->addresses().local), port_of(server.addresses().peer));
    EXPECT_EQ(send(server, "hello"), 5);
    EXPECT_EQ(receive(*client), "hello");
    EXPECT_FALSE(datagram);
    server.shut_down_sending();
    EXPECT_EQ(receive(*client), "");
    EXPECT_EQ(result, 0);
    Watcher far;
    services->observe(server, far);
    talk(*client, server, [&](Service& there) {
      there.await_readable();
      EXPECT_TRUE(run_until([&] { return far.readable; }));
    });
  }
}

TEST_F(SocketServicesTest, nobody_listens) {
  uint16_t port = 0;
  { port = port_of(listen("127.0.0.1")->address()); }
  const auto service = connect("127.0.0.1", port);
  EXPECT_EQ(watcher.connected, ECONNREFUSED);
}

TEST_F(SocketServicesTest, names_are_resolved_and_every_address_is_tried) {
  auto listener = listen("127.0.0.1");  // localhost may be ::1 first
  const auto client = connect("localhost", port_of(listener->address()));
  EXPECT_EQ(watcher.connected, 0);
}

TEST_F(SocketServicesTest, a_name_nobody_knows_is_an_unreachable_host) {
  const auto service = connect("no-such-name.invalid", 80);
  EXPECT_EQ(watcher.connected, EHOSTUNREACH);
}

TEST_F(SocketServicesTest, an_address_of_the_other_family_is_an_unreachable_host) {
  const auto service = connect("127.0.0.1", 80, SocketType::stream, Family::ipv6);
  EXPECT_EQ(watcher.connected, EHOSTUNREACH);
}

TEST_F(SocketServicesTest, a_service_may_go_while_its_name_is_looked_up) {
  watcher = {};
  services
      ->connect(csd::Client{1}, {.type = SocketType::stream, .family = {}, .port = 80, .node = "localhost"},
                watcher)
      .reset();
  loop.run_for(std::chrono::milliseconds(50));
  EXPECT_EQ(watcher.connected, -1);
}

TEST_F(SocketServicesTest, the_factory_may_go_while_a_name_is_looked_up) {
  services
      ->connect(csd::Client{1}, {.type = SocketType::stream, .family = {}, .port = 80, .node = "localhost"},
                watcher)
      .reset();
  services.reset();
  loop.run_for(std::chrono::milliseconds(50));
}

TEST_F(SocketServicesTest, closing_resets_unless_it_is_in_order) {
  auto listener = listen("127.0.0.1");
  for (const bool in_order : {false, true}) {
    gate.accepted.clear();
    auto client = connect("127.0.0.1", port_of(listener->address()));
    ASSERT_TRUE(run_until([&] { return !gate.accepted.empty(); }));
    if (in_order) gate.accepted[0]->close_in_order();
    gate.accepted.clear();
    receive(*client);
    EXPECT_EQ(result, in_order ? 0 : -ECONNRESET);
  }
}

TEST_F(SocketServicesTest, a_connection_that_was_made_resets_too_unless_it_is_in_order) {
  auto listener = listen("127.0.0.1");
  for (const bool in_order : {false, true}) {
    gate.accepted.clear();
    auto client = connect("127.0.0.1", port_of(listener->address()));
    ASSERT_TRUE(run_until([&] { return !gate.accepted.empty(); }));
    services->observe(*gate.accepted[0], watcher);
    if (in_order) client->close_in_order();
    client.reset();
    receive(*gate.accepted[0]);
    EXPECT_EQ(result, in_order ? 0 : -ECONNRESET);
  }
}

TEST_F(SocketServicesTest, a_full_socket_tells_when_there_is_room) {
  auto listener = listen("127.0.0.1");
  auto client = connect("127.0.0.1", port_of(listener->address()));
  ASSERT_TRUE(run_until([&] { return !gate.accepted.empty(); }));
  const std::string piece(1 << 20, 'x');
  size_t sent = 0;
  ssize_t last = 0;
  while ((last = send(*client, piece)) > 0) sent += static_cast<size_t>(last);
  EXPECT_EQ(last, -EAGAIN);
  client->await_readable();  // it survives the wait for room
  client->await_writable();
  Watcher far;
  services->observe(*gate.accepted[0], far);
  std::vector<uint8_t> into(1 << 20);
  bool is_datagram = false;
  EXPECT_TRUE(run_until([&] {
    const ssize_t size = gate.accepted[0]->receive(into, is_datagram);
    if (size > 0) sent -= static_cast<size_t>(size);
    return watcher.writable;
  }));
  EXPECT_TRUE(run_until([&] {
    const ssize_t size = gate.accepted[0]->receive(into, is_datagram);
    if (size > 0) sent -= static_cast<size_t>(size);
    return sent == 0;
  }));
  EXPECT_FALSE(watcher.readable);
  EXPECT_EQ(send(*gate.accepted[0], "back"), 4);
  EXPECT_TRUE(run_until([&] { return watcher.readable; }));
}

TEST_F(SocketServicesTest, udp_keeps_datagrams) {
  for (const int family : {AF_INET, AF_INET6}) {
    uint16_t port = 0;
    if (family == AF_INET6 && !listen("::1")) continue;
    const int peer = udp_peer(port, family);
    const auto service = connect(family == AF_INET ? "127.0.0.1" : "::1", port, SocketType::datagram);
    ASSERT_EQ(watcher.connected, 0);
    EXPECT_EQ(send(*service, ""), 0);
    EXPECT_EQ(send(*service, "ping"), 4);
    char into[100];
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    EXPECT_EQ(recvfrom(peer, into, sizeof into, 0, reinterpret_cast<sockaddr*>(&from), &size), 0);
    EXPECT_EQ(recv(peer, into, sizeof into, 0), 4);
    EXPECT_EQ(port_of(from), port_of(service->addresses().local));
    EXPECT_EQ(sendto(peer, "", 0, 0, reinterpret_cast<sockaddr*>(&from), size), 0);
    EXPECT_EQ(sendto(peer, "pong", 4, 0, reinterpret_cast<sockaddr*>(&from), size), 4);
    EXPECT_EQ(receive(*service), "");
    EXPECT_EQ(result, 0);
    EXPECT_TRUE(datagram);
    EXPECT_EQ(receive(*service, 2), "");
    EXPECT_EQ(result, -EMSGSIZE);
    close(peer);
  }
}

TEST_F(SocketServicesTest, udp_tells_of_a_port_nobody_has) {
  uint16_t port = 0;
  close(udp_peer(port));
  const auto service = connect("127.0.0.1", port, SocketType::datagram);
  EXPECT_EQ(send(*service, "ping"), 4);
  receive(*service);
  EXPECT_EQ(result, -ECONNREFUSED);
}

TEST_F(SocketServicesTest, a_paused_listener_leaves_connections_waiting) {
  auto listener = listen("127.0.0.1");
  listener->pause();
  const auto first = connect("127.0.0.1", port_of(listener->address()));
  EXPECT_EQ(watcher.connected, 0);
  loop.run_for(std::chrono::milliseconds(20));
  EXPECT_TRUE(gate.accepted.empty());
  listener->resume();
  EXPECT_TRUE(run_until([&] { return gate.accepted.size() == 1; }));
}

TEST_F(SocketServicesTest, listening_fails_with_its_errno) {
  auto listener = listen("127.0.0.1");
  EXPECT_FALSE(listen("127.0.0.1", port_of(listener->address())));
  EXPECT_EQ(listen_error, EADDRINUSE);
  EXPECT_FALSE(listen("localhost"));
  EXPECT_EQ(listen_error, EADDRNOTAVAIL);
}

TEST_F(SocketServicesTest, to_connect_and_to_listen_are_allowed_apart) {
  csd::Allowed allowed{.to_listen = csd::AllowList(csd::AllowList::Empty::nothing)};
  uint16_t port = 0;
  { port = port_of(listen("127.0.0.1")->address()); }
  ASSERT_TRUE(allowed.to_connect.add("*:" + std::to_string(port)));
  ASSERT_TRUE(allowed.to_listen.add("127.0.0.1:" + std::to_string(port + 1)));
  services.emplace(loop, where, std::move(allowed));
  EXPECT_FALSE(listen("127.0.0.1", port));
  EXPECT_EQ(listen_error, EACCES);
  connect("127.0.0.1", port);
  EXPECT_EQ(watcher.connected, ECONNREFUSED);
  listen("127.0.0.1", static_cast<uint16_t>(port + 1));
  EXPECT_NE(listen_error, EACCES);
  connect("127.0.0.1", static_cast<uint16_t>(port + 1));
  EXPECT_EQ(watcher.connected, EACCES);
}

}  // namespace
}  // namespace nvsock
