// TLS keys of NVMe/TCP: the text that administrators hand out, and what a connection's TLS is given of it.
//
// Source: NVM Express TCP Transport Specification 1.1, sections 3.6.1.2 to 3.6.1.5, and RFC 8446 section 7.1.
// A configured key is text of one line, such as `nvme gen-tls-key` prints:
//
//   NVMeTLSkey-1:HH:BASE64:    HH: 00, 01 or 02, the hash; BASE64: the key and its CRC-32
//
// With a hash, host and subsystem use another key (the retained one), which depends on the host's name. The
// key of a connection (TLS PSK) is made of that and of the PSK identity, which names both ends:
//
//   NVMe0R01 HOSTNQN SUBNQN            version 0; R01: SHA-256, R02: SHA-384
//   NVMe1R01 HOSTNQN SUBNQN DIGEST     version 1, where DIGEST tells keys of the same names apart
//
// Older releases of libnvme leave the lengths out of HkdfLabel: what they make of the same text is another
// key. Secrets are wiped from memory when they go. Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "libnvsock/base/result.hpp"

namespace nvsock {

class TlsSecret {
 public:
  static constexpr size_t max_size = 48;

  TlsSecret() = default;
  explicit TlsSecret(std::span<const uint8_t> bytes);  // REQUIRES: at most max_size
  TlsSecret(const TlsSecret&) = default;
  TlsSecret& operator=(const TlsSecret&) = default;
  ~TlsSecret();

  std::span<const uint8_t> bytes() const { return std::span(bytes_).first(size_); }

 private:
  std::array<uint8_t, max_size> bytes_{};
  size_t size_ = 0;
};

struct TlsKey {
  bool sha384 = false;    // the hash of everything, and the cipher suite's; else SHA-256
  bool retained = false;  // used as it is (HH 00)
  TlsSecret secret;       // as long as a hash
};

// Those of a target.
struct TlsKeys {
  TlsKeys() = default;
  TlsKeys(const TlsKey& for_all) : common(for_all) {}

  // A host's own, or else the one for all; null: it has none.
  const TlsKey* find(std::string_view host) const;
  // The hash of all of them.
  bool sha384() const;

  std::optional<TlsKey> common{};
  std::map<std::string, TlsKey, std::less<>> by_host{};  // by NQN
};

// EINVAL with a sentence that names what is wrong, and no byte of the key.
Result<TlsKey> parse_tls_key(std::string_view text);
// Of a regular file of this user or root that only its owner may read, and no symbolic link to one; blanks
// around the key do not matter. Blocks for the disk.
Result<TlsKey> load_tls_key(const std::string& path);

struct TlsPsk {
  std::string identity;
  TlsSecret secret;
};

// Nothing: the identity is of version 0, and longer than the 255 bytes that can be part of its key.
// REQUIRES: names without blanks, of at most 223 bytes.
std::optional<TlsPsk> derive_tls_psk(const TlsKey& key, std::string_view host, std::string_view subsystem,
                                     unsigned version);

// The parts of an identity from outside: not checked further, views of the text.
struct TlsIdentity {
  unsigned version = 0;
  std::string_view host;
  std::string_view subsystem;
};
std::optional<TlsIdentity> parse_tls_identity(std::string_view text);

}  // namespace nvsock
