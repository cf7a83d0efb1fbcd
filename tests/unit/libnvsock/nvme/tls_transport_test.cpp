// TLS between two ends in one process: what crosses, what is refused and why, and that no wait is missed.
#include "libnvsock/nvme/tls_transport.hpp"

#include <openssl/ssl.h>

#include <cerrno>

#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using test::expect_sentence;
using test::pattern;
using test::Peer;

const std::string host_nqn = "nqn.2014-08.org.example:host", csd_nqn = "nqn.2014-08.org.example:csd";
const char* const key32 = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";
const char* const plain32 = "NVMeTLSkey-1:00:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";
const char* const key48 =
    "NVMeTLSkey-1:02:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3W2LxIcLXVsDn8kXZQ==:";

// One end, which sends what it is given and keeps what it gets, as a user of the transport would.
struct End {
  explicit End(int of) : socket(of) {}

  bool readable() const { return transport->pending() || (socket.poll_events() & (POLLIN | POLLRDHUP)) != 0; }
  // Everything that can be done now. False: nothing could.
  bool step(size_t part = 5000) {
    bool moved = false;
    while (error == 0 && !ended && readable()) {
      std::vector<char> bytes(part);
      const iovec parts[] = {{bytes.data(), part / 2}, {bytes.data() + part / 2, part - part / 2}};
      const ssize_t size = transport->receive(parts);
      if (size < 0 && errno != EAGAIN) error = errno;
      if (size == 0) ended = true;
      if (size > 0) received.append(bytes.data(), static_cast<size_t>(size));
      moved = true;
    }
    while (error == 0 && transport->sends(sent < to_send.size())) {
      // A header, a large part, and a tail.
      std::vector<iovec> parts;
      size_t at = sent;
      for (const size_t size : {size_t{72}, size_t{40'000}, size_t{4}, size_t{100'000}}) {
        const size_t fits = std::min(size, to_send.size() - at);
        if (fits > 0) parts.push_back({to_send.data() + at, fits});
        at += fits;
      }
      const ssize_t size = transport->send(parts);
      if (size < 0 && errno == EAGAIN) break;
      if (size < 0) error = errno;
      if (size > 0) sent += static_cast<size_t>(size);
      moved = true;
    }
    return moved;
  }

  Peer socket;
  std::unique_ptr<ByteTransport> transport;
  std::string to_send, received;
  size_t sent = 0;
  bool ended = false;
  int error = 0;
};

class TlsTransport : public ::testing::Test {
 protected:
  TlsTransport() { pair(); }

  // Two new ends that are not connected yet.
  void pair() {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    const int small = 4096;
    for (const int fd : fds) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    host.emplace(fds[0]);
    target.emplace(fds[1]);
  }

  void connect(const char* host_key, const char* target_key, unsigned version = 1,
               const std::string& subsystem = csd_nqn) {
    auto for_host = TlsContext::for_host(*parse_tls_key(host_key), host_nqn, subsystem, version);
    auto for_target = TlsContext::for_target(*parse_tls_key(target_key), {"nqn.other", csd_nqn});
    ASSERT_TRUE(for_host && for_target);
    host_context = std::move(*for_host);
    target_context = std::move(*for_target);
    host->transport = host_context->over(host->socket.fd());
    target->transport = target_context->over(target->socket.fd());
  }
  void establish() {
    connect(key32, key32);
    host->to_send = "x";
    run();
    ASSERT_EQ(target->received, "x");
    host->to_send.clear();
    target->received.clear();
    host->sent = 0;
  }
  void run(size_t part = 5000) {
    for (bool moved = true; moved;) {
      moved = host->step(part);
      moved = target->step(part) || moved;
    }
  }

  std::unique_ptr<TlsContext> host_context, target_context;
  std::optional<End> host, target;
};

TEST_F(TlsTransport, bytes_cross_both_ways_with_every_kind_of_key) {
  for (const char* const key : {key32, plain32, key48}) {
    for (const unsigned version : {0u, 1u}) {
      for (const size_t part : {2u, 333u, 1'000'000u}) {
        pair();
        connect(key, key, version);
        const size_t size = part < 100 ? 20'000 : 700'000;
        host->to_send = pattern(size, 1);
        target->to_send = pattern(size, 2);
        run(part);
        EXPECT_EQ(host->error, 0) << host->transport->failure();
        EXPECT_TRUE(host->received == target->to_send);
        EXPECT_TRUE(target->received == host->to_send);
        EXPECT_EQ(target->transport->proven_host(), host_nqn);
        EXPECT_EQ(host->transport->proven_host(), "");
      }
    }
  }
}

TEST_F(TlsTransport, nothing_goes_out_as_it_is) {
  connect(key32, key32);
  host->to_send = std::string(20'000, 'S');
  std::string seen;
  for (bool moved = true; moved;) {
    moved = host->step();
    char bytes[65536];
    const ssize_t size = recv(target->socket.fd(), bytes, sizeof bytes, MSG_DONTWAIT | MSG_PEEK);
    if (size > 0) seen.append(bytes, static_cast<size_t>(size));
    moved = target->step() || moved;
  }
  EXPECT_EQ(target->received, host->to_send);
  EXPECT_GE(seen.size(), 20'000u);
  EXPECT_EQ(seen.find("SSSS"), std::string::npos);
}

TEST_F(TlsTransport, another_key_or_name_is_refused_and_both_know) {
  const auto refused = [this](const char* host_key, const char* target_key, unsigned version,
                              const std::string& subsystem, const std::string& told_target) {
    pair();
    connect(host_key, target_key, version, subsystem);
    host->to_send = target->to_send = "secret";
    run();
    EXPECT_EQ(target->error, EPROTO);
    EXPECT_EQ(target->transport->failure(), told_target);
    EXPECT_EQ(host->error, EPROTO);
    EXPECT_NE(
        host->transport->failure().find("it refuses the TLS key: it has another one, or none for host \"" +
                                        host_nqn + "\" and subsystem \"" + subsystem + '"'),
        std::string::npos)
        << host->transport->failure();
    EXPECT_EQ(host->received + target->received, "");
    EXPECT_EQ(target->transport->proven_host(), "");
  };
  const std::string another = "host \"" + host_nqn + "\" has another TLS key";
  refused(plain32, key32, 1, csd_nqn, another);
  refused(plain32, key32, 0, csd_nqn, another);
  refused(key48, key32, 1, csd_nqn, "the host has a TLS key for another cipher suite");
  refused(key32, key32, 1, csd_nqn + "2",
          "host \"" + host_nqn + "\" has a TLS key for another subsystem, \"" + csd_nqn + "2\"");
}

TEST_F(TlsTransport, a_peer_without_tls_is_told_at_once) {
  connect(key32, key32);
  host->transport = make_plain_transport(host->socket.fd());
  host->to_send = std::string("\x00\x00\x80\x00\x80\x00\x00\x00", 8) + std::string(120, '\0');
  run();
  EXPECT_EQ(target->error, EPROTO);
  EXPECT_EQ(target->transport->failure(), "refused, because TLS is required and the host does not speak it");
  EXPECT_EQ(host->received, std::string("\x15\x03\x03\x00\x02\x02\x46", 7));  // an alert
}

TEST_F(TlsTransport, a_target_without_tls_is_named) {
  connect(key32, key32);
  target->transport = make_plain_transport(target->socket.fd());
  target->to_send = std::string("\x03\x00\x18\x00\x18\x00\x00\x00", 8);  // C2HTermReq
  run();
  EXPECT_EQ(host->error, EPROTO);
  EXPECT_EQ(host->transport->failure(),
            "it does not speak TLS; leave ?tls-key= away, or give the target the key");
}

TEST_F(TlsTransport, a_peer_that_closes_in_the_handshake_is_told) {
  connect(key32, key32);
  host->to_send = "x";
  host->step();
  target->socket.close();
  host->step();
  EXPECT_EQ(host->error, EPROTO);
  EXPECT_EQ(host->transport->failure(), "it closed the connection when TLS was to start; does it speak TLS?");
}

TEST_F(TlsTransport, an_end_comes_after_the_last_byte) {
  for (const bool announced : {true, false}) {
    SCOPED_TRACE(announced);
    pair();
    connect(key32, key32);
    host->to_send = "the last";
    host->step();
    target->step();
    host->step();
    for (int i = 0; announced && i < 2; ++i) host->transport->end();
    host->socket.close();
    target->step(2);
    EXPECT_EQ(target->received, "the last");
    EXPECT_TRUE(target->ended);
    EXPECT_EQ(target->error, 0);
  }
}

TEST_F(TlsTransport, bytes_that_were_changed_end_the_connection) {
  establish();
  host->to_send = "right";
  run();
  host->socket.send(std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x'));
  run();
  EXPECT_EQ(target->received, "right");
  EXPECT_EQ(target->error, EPROTO);
  EXPECT_EQ(target->transport->failure(), "it broke the rules of TLS");
  EXPECT_TRUE(host->error != 0 || host->ended);
}

// What OpenSSL has read makes no readable event any more.
TEST_F(TlsTransport, bytes_that_are_already_here_are_pending) {
  establish();
  host->to_send = "0123456789";
  host->step();
  ASSERT_EQ(host->sent, 10u);
  char bytes[4];
  const iovec part = {bytes, sizeof bytes};
  EXPECT_FALSE(target->transport->pending());
  EXPECT_EQ(target->transport->receive({&part, 1}), 4);
  EXPECT_EQ(target->socket.poll_events() & POLLIN, 0);
  EXPECT_TRUE(target->transport->pending());
  target->step(4);
  EXPECT_EQ(target->received, "456789");
  EXPECT_FALSE(target->transport->pending());
}

TEST_F(TlsTransport, a_full_socket_is_waited_for) {
  establish();
  host->to_send = pattern(10'000'000);
  host->step();
  EXPECT_LT(host->sent, 1'000'000u);
  EXPECT_EQ(host->error, 0);
  EXPECT_TRUE(host->transport->sends(false)) << "part of a record is left";
  const iovec part = {host->to_send.data(), 1};
  EXPECT_EQ(host->transport->send({&part, 1}), -1);
  EXPECT_EQ(errno, EAGAIN);
  run();
  EXPECT_TRUE(target->received == host->to_send);
}

// OpenSSL answers every request for new keys; a peer that does not read the answers must not fill our memory.
TEST_F(TlsTransport, a_peer_that_asks_for_new_keys_and_reads_nothing_is_ended) {
  connect(plain32, plain32);
  static const TlsPsk psk = *derive_tls_psk(*parse_tls_key(plain32), host_nqn, csd_nqn, 1);
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  SSL_CTX_set_ciphersuites(context.get(), "TLS_AES_128_GCM_SHA256");
  SSL_CTX_set_psk_use_session_callback(
      context.get(),
      [](SSL* ssl, const EVP_MD*, const unsigned char** identity, size_t* size, SSL_SESSION** session) {
        const uint8_t suite[] = {0x13, 1};
        *session = SSL_SESSION_new();
        SSL_SESSION_set1_master_key(*session, psk.secret.bytes().data(), psk.secret.bytes().size());
        SSL_SESSION_set_cipher(*session, SSL_CIPHER_find(ssl, suite));
        SSL_SESSION_set_protocol_version(*session, TLS1_3_VERSION);
        *identity = reinterpret_cast<const unsigned char*>(psk.identity.data());
        *size = psk.identity.size();
        return 1;
      });
  const std::unique_ptr<SSL, void (*)(SSL*)> peer(SSL_new(context.get()), SSL_free);
  SSL_set_fd(peer.get(), host->socket.fd());
  for (int i = 0; i < 10 && SSL_connect(peer.get()) != 1; ++i) target->step();
  ASSERT_TRUE(SSL_is_init_finished(peer.get()));
  for (int i = 0; i < 100'000 && target->error == 0; ++i) {
    SSL_key_update(peer.get(), SSL_KEY_UPDATE_REQUESTED);
    SSL_do_handshake(peer.get());
    target->step();
  }
  EXPECT_EQ(target->error, EPROTO);
}

}  // namespace
}  // namespace nvsock
