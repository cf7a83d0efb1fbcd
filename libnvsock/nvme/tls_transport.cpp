#include "libnvsock/nvme/tls_transport.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "libnvsock/base/quoted.hpp"

namespace nvsock {
namespace {

constexpr size_t record_size = SSL3_RT_MAX_PLAIN_LENGTH;
constexpr size_t taken_at_once = 4 * record_size;
// Of records: what is taken at once, and more than a peer makes us say by itself that reads what it is sent.
constexpr size_t max_held = 2 * taken_at_once;
// RFC 8446 section 5.5: 2^24.5 full records, of which a send makes up to 8.
constexpr unsigned sends_a_key = 1 << 21;
// RFC 8446 section 5.1: the types of records.
constexpr uint8_t first_record_type = 20, last_record_type = 23;
// For a peer that does not speak TLS, which OpenSSL leaves without an answer: an alert, so that it knows what
// this is. Fatal, protocol_version.
constexpr uint8_t plain_peer_alert[] = {21, 3, 3, 0, 2, 2, 70};

struct Free {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
  void operator()(BIO_METHOD* method) const { BIO_meth_free(method); }
};

Error out_of_openssl() {
  const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
  return {ENOMEM, std::string("TLS cannot be set up: ") + (reason != nullptr ? reason : "unknown error")};
}

class TlsTransport;

class Context final : public TlsContext {
 public:
  enum class End { host, target };

  explicit Context(End which) : end(which) {}

  bool prepare(bool sha384);
  std::unique_ptr<ByteTransport> over(int fd) const override;

  // What TLS is given for a PSK; null with nothing set for want of memory.
  static SSL_SESSION* session_of(SSL* ssl, const TlsPsk& psk);

  const End end;
  TlsKeys keys;                         // target
  std::vector<std::string> subsystems;  // target
  TlsPsk psk;                           // host
  std::string refused;                  // host: the sentence when the target does not take the key

 private:
  std::unique_ptr<SSL_CTX, Free> ssl_;
};

class TlsTransport final : public ByteTransport {
 public:
  TlsTransport(const Context& context, SSL_CTX* ssl, int fd);

  bool sends(bool any) const override;
  ssize_t send(std::span<const iovec> parts) override;
  ssize_t receive(std::span<const iovec> parts) override;
  bool pending() const override { return more_; }
  void end() override;
  const std::string& failure() const override { return failure_; }
  std::string_view proven_host() const override {
    return established_ ? std::string_view(host_) : std::string_view();
  }

  // For OpenSSL.
  int read(BIO* bio, char* to, int size);
  int write(const char* from, int size);
  SSL_SESSION* offer(SSL* ssl, const uint8_t*& identity, size_t& size) const;
  SSL_SESSION* find(SSL* ssl, std::string_view identity);

 private:
  bool shake_hands();
  bool fail_handshake();
  bool encrypt(std::span<const iovec> parts, size_t& taken);
  bool drain();

  const Context& context_;
  const int fd_;
  std::unique_ptr<SSL, Free> ssl_;
  bool started_ = false;      // the handshake
  bool established_ = false;  // it is over
  bool heard_ = false;
  bool more_ = false;       // receive() has stopped for want of room, or has an end to tell
  uint8_t first_byte_ = 0;  // that the peer sent
  int ended_ = -1;          // how receiving ended: 0 orderly, or an errno; -1: it did not
  int socket_error_ = -1;   // the same of the socket
  std::string host_;        // target: whose key it is
  std::string failure_;
  std::vector<uint8_t> held_;  // records, not sent yet
  size_t left_ = 0;            // bytes of held_ that have left
  unsigned sends_ = 0;         // with this key
};

// --- OpenSSL's view of a transport ---

TlsTransport& transport_of(BIO* bio) {
  return *static_cast<TlsTransport*>(BIO_get_data(bio));
}

const BIO_METHOD* bio_method() {
  static const std::unique_ptr<BIO_METHOD, Free> method = [] {
    std::unique_ptr<BIO_METHOD, Free> made(
        BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "nvsock"));
    if (made == nullptr) return made;
    BIO_meth_set_read(made.get(),
                      [](BIO* bio, char* to, int size) { return transport_of(bio).read(bio, to, size); });
    BIO_meth_set_write(
        made.get(), [](BIO* bio, const char* from, int size) { return transport_of(bio).write(from, size); });
    BIO_meth_set_ctrl(made.get(), [](BIO*, int what, long, void*) -> long { return what == BIO_CTRL_FLUSH; });
    return made;
  }();
  return method.get();
}

int use_session(SSL* ssl, const EVP_MD*, const unsigned char** identity, size_t* size,
                SSL_SESSION** session) {
  *session = static_cast<TlsTransport*>(SSL_get_app_data(ssl))->offer(ssl, *identity, *size);
  return *session != nullptr;
}

// A key that is not known is no error to OpenSSL: the handshake then fails for want of a certificate.
int find_session(SSL* ssl, const unsigned char* identity, size_t size, SSL_SESSION** session) {
  *session = static_cast<TlsTransport*>(SSL_get_app_data(ssl))
                 ->find(ssl, {reinterpret_cast<const char*>(identity), size});
  return 1;
}

// --- contexts ---

bool Context::prepare(bool sha384) {
  ERR_clear_error();
  ssl_.reset(SSL_CTX_new(end == End::host ? TLS_client_method() : TLS_server_method()));
  SSL_CTX* const ssl = ssl_.get();
  if (ssl == nullptr || bio_method() == nullptr) return false;
  SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(ssl, 1);
  // A host trusts no certificate, whoever signed it.
  SSL_CTX_set_verify(ssl, end == End::host ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
  if (end == End::host) {
    SSL_CTX_set_psk_use_session_callback(ssl, use_session);
  } else {
    SSL_CTX_set_psk_find_session_callback(ssl, find_session);
  }
  return SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) == 1 &&
         SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) == 1 && SSL_CTX_set_num_tickets(ssl, 0) == 1 &&
         SSL_CTX_set_ciphersuites(ssl, sha384 ? "TLS_AES_256_GCM_SHA384" : "TLS_AES_128_GCM_SHA256") == 1;
}

std::unique_ptr<ByteTransport> Context::over(int fd) const {
  return std::make_unique<TlsTransport>(*this, ssl_.get(), fd);
}

SSL_SESSION* Context::session_of(SSL* ssl, const TlsPsk& of) {
  const auto secret = of.secret.bytes();
  const uint8_t suite[] = {0x13, static_cast<uint8_t>(secret.size() == 48 ? 2 : 1)};  // RFC 8446 section B.4
  std::unique_ptr<SSL_SESSION, Free> session(SSL_SESSION_new());
  const bool made = session != nullptr &&
                    SSL_SESSION_set1_master_key(session.get(), secret.data(), secret.size()) == 1 &&
                    SSL_SESSION_set_cipher(session.get(), SSL_CIPHER_find(ssl, suite)) == 1 &&
                    SSL_SESSION_set_protocol_version(session.get(), TLS1_3_VERSION) == 1;
  return made ? session.release() : nullptr;
}

// --- the handshake ---

TlsTransport::TlsTransport(const Context& context, SSL_CTX* ssl, int fd)
    : context_(context), fd_(fd), ssl_(SSL_new(ssl)) {
  BIO* const bio = ssl_ != nullptr ? BIO_new(bio_method()) : nullptr;
  if (bio == nullptr) {
    failure_ = out_of_openssl().text;
    ended_ = ENOMEM;
    return;
  }
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
  SSL_set_app_data(ssl_.get(), this);
  if (context.end == Context::End::host) {
    SSL_set_connect_state(ssl_.get());
  } else {
    SSL_set_accept_state(ssl_.get());
  }
}

SSL_SESSION* TlsTransport::offer(SSL* ssl, const uint8_t*& identity, size_t& size) const {
  identity = reinterpret_cast<const uint8_t*>(context_.psk.identity.data());
  size = context_.psk.identity.size();
  return Context::session_of(ssl, context_.psk);
}

SSL_SESSION* TlsTransport::find(SSL* ssl, std::string_view identity) {
  const auto named = parse_tls_identity(identity);
  if (!named) {
    failure_ = "its TLS key is not one of NVMe/TCP: " + quoted(identity);
    return nullptr;
  }
  host_ = named->host;
  if (std::ranges::find(context_.subsystems, named->subsystem) == context_.subsystems.end()) {
    failure_ = "host " + quoted(host_) + " has a TLS key for another subsystem, " + quoted(named->subsystem);
    return nullptr;
  }
  const TlsKey* const key = context_.keys.find(host_);
  if (key == nullptr) {
    failure_ = "there is no TLS key for host " + quoted(host_);
    return nullptr;
  }
  const auto psk = derive_tls_psk(*key, named->host, named->subsystem, named->version);
  if (!psk || psk->identity != identity) {
    failure_ = "host " + quoted(host_) + " has another TLS key";
    return nullptr;
  }
  return Context::session_of(ssl, *psk);
}

// False: it has failed.
bool TlsTransport::shake_hands() {
  started_ = true;
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result == 1 && SSL_session_reused(ssl_.get()) == 1) {
    established_ = true;
    failure_.clear();
    return true;
  }
  if (result != 1 && SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_READ) return true;
  return fail_handshake();
}

bool TlsTransport::fail_handshake() {
  const unsigned long error = ERR_peek_error();
  const int reason = ERR_GET_REASON(error);
  const bool host = context_.end == Context::End::host;
  ended_ = EPROTO;
  if (heard_ && (first_byte_ < first_record_type || first_byte_ > last_record_type)) {
    failure_ = host ? "it does not speak TLS; leave ?tls-key= away, or give the target the key"
                    : "refused, because TLS is required and the host does not speak it";
    if (!host) held_.assign(std::begin(plain_peer_alert), std::end(plain_peer_alert));
  } else if (ERR_GET_LIB(error) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET) {
    const std::string alert = SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET);
    failure_ = (host ? context_.refused : "the host refuses the TLS handshake") + " (alert: " + alert + ")";
  } else if (socket_error_ > 0 && heard_) {
    failure_ = std::strerror(socket_error_);
  } else if (socket_error_ >= 0) {
    failure_ = host ? "it closed the connection when TLS was to start; does it speak TLS?"
                    : "the host closed the connection in the TLS handshake";
  } else if (reason == SSL_R_BINDER_DOES_NOT_VERIFY) {
    failure_ = "host " + quoted(host_) + " has another TLS key";
  } else if (reason == SSL_R_NO_SHARED_CIPHER) {
    failure_ = "the host has a TLS key for another cipher suite";
  } else if (failure_.empty()) {
    const char* const text = ERR_reason_error_string(error);
    failure_ = std::string("the TLS handshake failed: ") + (text != nullptr ? text : "the key was not used");
  }
  drain();  // the alert
  errno = ended_;
  return false;
}

// --- bytes ---

int TlsTransport::read(BIO* bio, char* to, int size) {
  BIO_clear_retry_flags(bio);
  ssize_t received = 0;
  do received = recv(fd_, to, static_cast<size_t>(size), MSG_DONTWAIT);
  while (received < 0 && errno == EINTR);
  if (received > 0) {
    if (!heard_) first_byte_ = static_cast<uint8_t>(to[0]);
    heard_ = true;
  } else if (received < 0 && errno == EAGAIN) {
    BIO_set_retry_read(bio);
  } else {
    socket_error_ = received == 0 ? 0 : errno;
  }
  return static_cast<int>(received);
}

int TlsTransport::write(const char* from, int size) {
  if (held_.size() + static_cast<size_t>(size) > max_held) return -1;
  held_.insert(held_.end(), from, from + size);
  return size;
}

// Sends what is held. False: not all of it, errno says why.
bool TlsTransport::drain() {
  while (left_ < held_.size()) {
    const ssize_t size = ::send(fd_, held_.data() + left_, held_.size() - left_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return false;
    left_ += static_cast<size_t>(size);
  }
  held_.clear();
  left_ = 0;
  return true;
}

bool TlsTransport::sends(bool any) const {
  const bool begins = context_.end == Context::End::host && !started_;
  return !held_.empty() || (any && (established_ || begins || ended_ > 0));
}

ssize_t TlsTransport::send(std::span<const iovec> parts) {
  size_t taken = 0;
  if (ended_ > 0) {
    errno = ended_;
    return -1;
  }
  if (held_.empty()) {
    if (!established_ && !shake_hands()) return -1;
    if (established_ && !encrypt(parts, taken)) {
      errno = EIO;
      return -1;
    }
  }
  if (!drain() && (errno != EAGAIN || taken == 0)) return -1;
  return static_cast<ssize_t>(taken);
}

// Small parts share records; large ones are not copied.
bool TlsTransport::encrypt(std::span<const iovec> parts, size_t& taken) {
  uint8_t record[record_size];
  size_t gathered = 0;
  const auto put = [&](const uint8_t* bytes, size_t size) {
    ERR_clear_error();
    // Memory takes it all: there is nothing to be tried again.
    return SSL_write(ssl_.get(), bytes, static_cast<int>(size)) == static_cast<int>(size);
  };
  if (++sends_ == sends_a_key) {
    sends_ = 0;
    if (SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1) return false;
  }
  for (const iovec& part : parts) {
    const auto* bytes = static_cast<const uint8_t*>(part.iov_base);
    size_t left = std::min(part.iov_len, taken_at_once - taken);
    taken += left;
    while (left > 0) {
      const bool direct = gathered == 0 && left >= record_size;
      const size_t size = direct ? left : std::min(left, record_size - gathered);
      if (!direct) std::copy_n(bytes, size, record + gathered);
      gathered += direct ? 0 : size;
      if (direct && !put(bytes, size)) return false;
      if (gathered == record_size) {
        if (!put(record, gathered)) return false;
        gathered = 0;
      }
      bytes += size;
      left -= size;
    }
  }
  return gathered == 0 || put(record, gathered);
}

ssize_t TlsTransport::receive(std::span<const iovec> parts) {
  more_ = false;
  if (ended_ < 0 && !established_ && !shake_hands()) return -1;
  size_t received = 0;
  int reason = established_ ? SSL_ERROR_NONE : SSL_ERROR_WANT_READ;
  for (const iovec& part : parts) {
    auto* const bytes = static_cast<uint8_t*>(part.iov_base);
    size_t filled = 0;
    while (filled < part.iov_len && reason == SSL_ERROR_NONE && ended_ < 0) {
      size_t size = 0;
      ERR_clear_error();
      const int result = SSL_read_ex(ssl_.get(), bytes + filled, part.iov_len - filled, &size);
      if (result != 1) reason = SSL_get_error(ssl_.get(), result);
      filled += size;
    }
    received += filled;
  }
  if (reason == SSL_ERROR_ZERO_RETURN || socket_error_ == 0) {
    ended_ = 0;
  } else if (reason != SSL_ERROR_NONE && reason != SSL_ERROR_WANT_READ) {
    ended_ = socket_error_ > 0 ? socket_error_ : EPROTO;
    if (socket_error_ < 0) failure_ = "it broke the rules of TLS";
    drain();  // the alert
  }
  if (received > 0) {
    more_ = reason != SSL_ERROR_WANT_READ;
    return static_cast<ssize_t>(received);
  }
  if (ended_ == 0) return 0;
  errno = ended_ > 0 ? ended_ : EAGAIN;
  return -1;
}

void TlsTransport::end() {
  if (!established_ || ended_ > 0 || (SSL_get_shutdown(ssl_.get()) & SSL_SENT_SHUTDOWN) != 0) return;
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  drain();
}

}  // namespace

Result<std::unique_ptr<TlsContext>> TlsContext::for_host(const TlsKey& key, std::string_view host,
                                                         std::string_view subsystem,
                                                         unsigned identity_version) {
  auto context = std::make_unique<Context>(Context::End::host);
  auto psk = derive_tls_psk(key, host, subsystem, identity_version);
  if (!psk) {
    return Error{EINVAL,
                 "the names of host and subsystem are too long together for tls-identity=0 (246 bytes)"};
  }
  context->psk = std::move(*psk);
  context->refused = "it refuses the TLS key: it has another one, or none for host " + quoted(host) +
                     " and subsystem " + quoted(subsystem);
  if (!context->prepare(key.sha384)) return out_of_openssl();
  return std::unique_ptr<TlsContext>(std::move(context));
}

Result<std::unique_ptr<TlsContext>> TlsContext::for_target(TlsKeys keys,
                                                           std::vector<std::string> subsystems) {
  auto context = std::make_unique<Context>(Context::End::target);
  context->keys = std::move(keys);
  context->subsystems = std::move(subsystems);
  if (!context->prepare(context->keys.sha384())) return out_of_openssl();
  return std::unique_ptr<TlsContext>(std::move(context));
}

}  // namespace nvsock
