// TLS keys and PSK identities as text: what is taken is of a size that TLS can use, and names both ends.
#include "libnvsock/nvme/tls_key.hpp"

#include "libnvsock/nvme/queue_entry.hpp"
#include "tests/fuzz/fuzz.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace nvsock;
  using fuzz::check;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto key = parse_tls_key(text);
  if (!key) {
    const std::string& why = key.error().text;
    check(key.error().code == EINVAL && !why.empty() && why.size() < 200, "a refusal is told");
    check(why.find_first_of("\r\n") == std::string::npos, "it is one line");
  } else {
    check(key->secret.bytes().size() == (key->sha384 ? 48 : 32), "a key is as long as its hash");
  }
  const auto identity = parse_tls_identity(text);
  if (identity) {
    check(identity->version <= 1, "a version is known");
    check(!identity->host.empty() && identity->host.size() <= nvme::max_nqn &&
              identity->subsystem.size() <= nvme::max_nqn,
          "names are bounded");
    const TlsKey any{.sha384 = false, .retained = true, .secret = TlsSecret(std::array<uint8_t, 32>{})};
    const auto psk = derive_tls_psk(any, identity->host, identity->subsystem, identity->version);
    check(psk || identity->version == 0, "version 1 takes names of any length");
    const auto again = psk ? parse_tls_identity(psk->identity) : std::nullopt;
    check(!psk || (again && again->host == identity->host && again->subsystem == identity->subsystem),
          "an identity names what it was made of");
  }
  return 0;
}
