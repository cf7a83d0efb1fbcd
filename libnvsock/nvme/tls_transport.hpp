// TLS 1.3 on an NVMe/TCP connection, with a pre-shared key and an ephemeral Diffie-Hellman exchange.
//
// Source: NVM Express TCP Transport Specification 1.1, section 3.6.1. TLS starts before ICReq. The key
// decides the one cipher suite that is offered, TLS_AES_128_GCM_SHA256 or TLS_AES_256_GCM_SHA384. There are
// no certificates, no tickets and no early data: a peer without the key gets nowhere, and a handshake that
// did not use it fails.
//
// Theory of operation. OpenSSL reads records from the socket, and writes them to memory (`held`), from where
// they leave. So neither direction ever waits for the other: OpenSSL's reading needs no room in the socket,
// and what it has to say of its own (the handshake, alerts, an answer to KeyUpdate) leaves with the next
// send(). The handshake goes on in receive(); how long it may take is the user's business.
//
// Limits: 64 KiB of plaintext are taken at a time. So an end of a connection takes less than 100 KiB of
// memory, OpenSSL's included, and 15 KiB until it carries more than a few bytes. A peer that keeps asking for
// new keys and does not read the answers is ended at 300 KiB. Keys are updated every 2^21 sends, before the
// limit of AES-GCM (RFC 8446 section 5.5). Threads: one at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libnvsock/base/result.hpp"
#include "libnvsock/nvme/byte_transport.hpp"
#include "libnvsock/nvme/tls_key.hpp"

namespace nvsock {

// One end's part in all of its connections: the key, and whom it is for.
class TlsContext {
 public:
  // A host's. `identity_version` is 0 or 1. EINVAL with a sentence: version 0 cannot express names this long.
  static Result<std::unique_ptr<TlsContext>> for_host(const TlsKey& key, std::string_view host,
                                                      std::string_view subsystem, unsigned identity_version);
  // A target's, for hosts that have their key for one of the subsystems. REQUIRES: keys of one hash.
  static Result<std::unique_ptr<TlsContext>> for_target(TlsKeys keys, std::vector<std::string> subsystems);

  virtual ~TlsContext() = default;

  // Over a socket as in byte_transport.hpp. The context must outlive it.
  virtual std::unique_ptr<ByteTransport> over(int fd) const = 0;
};

}  // namespace nvsock
