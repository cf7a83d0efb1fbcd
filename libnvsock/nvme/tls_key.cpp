#include "libnvsock/nvme/tls_key.hpp"

#include <fcntl.h>
#include <isa-l/crc.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "libnvsock/base/bytes.hpp"
#include "libnvsock/base/quoted.hpp"
#include "libnvsock/nvme/queue_entry.hpp"

namespace nvsock {
namespace {

constexpr std::string_view prefix = "NVMeTLSkey-1:";
constexpr size_t crc_size = 4;
constexpr size_t max_file = 256;  // a key is 89 bytes at most; the rest is for blanks
constexpr std::string_view blanks = " \t\r\n";

Error invalid(std::string text) {
  return {EINVAL, "not a TLS key: " + std::move(text)};
}

const EVP_MD* hash_of(bool sha384) {
  return sha384 ? EVP_sha384() : EVP_sha256();
}

TlsSecret hmac(bool sha384, std::span<const uint8_t> key, std::string_view message) {
  std::array<uint8_t, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  // Fails for want of memory only.
  if (HMAC(hash_of(sha384), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const uint8_t*>(message.data()), message.size(), digest.data(),
           &size) == nullptr) {
    std::abort();
  }
  const TlsSecret result{std::span<const uint8_t>(digest).first(size)};
  OPENSSL_cleanse(digest.data(), digest.size());
  return result;
}

// HKDF-Extract without salt, then HKDF-Expand-Label to the length of the hash: one block (RFC 5869 section
// 2).
TlsSecret derive(bool sha384, const TlsSecret& from, std::string_view label, std::string_view context) {
  assert(context.size() <= 255);
  const std::array<uint8_t, EVP_MAX_MD_SIZE> no_salt{};
  const size_t size = sha384 ? 48 : 32;
  const auto secret = from.bytes();
  const TlsSecret prk = hmac(sha384, std::span(no_salt).first(size),
                             {reinterpret_cast<const char*>(secret.data()), secret.size()});
  std::string info{'\0', static_cast<char>(size), static_cast<char>(label.size())};
  info += label;
  info += static_cast<char>(context.size());
  info += context;
  info += '\1';
  return hmac(sha384, prk.bytes(), info);
}

std::string base64(std::span<const uint8_t> bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  const int size =
      EVP_EncodeBlock(reinterpret_cast<uint8_t*>(text.data()), bytes.data(), static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(size));
  return text;
}

}  // namespace

TlsSecret::TlsSecret(std::span<const uint8_t> bytes) : size_(bytes.size()) {
  assert(bytes.size() <= max_size);
  std::ranges::copy(bytes, bytes_.begin());
}

TlsSecret::~TlsSecret() {
  OPENSSL_cleanse(bytes_.data(), bytes_.size());
}

const TlsKey* TlsKeys::find(std::string_view host) const {
  const auto own = by_host.find(host);
  if (own != by_host.end()) return &own->second;
  return common ? &*common : nullptr;
}

bool TlsKeys::sha384() const {
  return common ? common->sha384 : !by_host.empty() && by_host.begin()->second.sha384;
}

Result<TlsKey> parse_tls_key(std::string_view text) {
  if (!text.starts_with(prefix)) return invalid("it does not begin with \"" + std::string(prefix) + '"');
  text.remove_prefix(prefix.size());
  const std::string_view hash = text.substr(0, 3);
  if (hash != "00:" && hash != "01:" && hash != "02:") {
    return invalid("its hash is " + quoted(hash.substr(0, hash.find(':'))) + ", not 00, 01 or 02");
  }
  text.remove_prefix(3);
  if (!text.ends_with(':')) return invalid("it does not end with a colon");
  text.remove_suffix(1);

  std::array<uint8_t, TlsSecret::max_size + crc_size + 2> bytes;
  const size_t size = text.size() == 48 ? 32 : 48;
  if (text.size() != 48 && text.size() != 72) {
    return invalid("it has " + std::to_string(text.size()) +
                   " characters between the last colons, not 48 (a key of 32 bytes) or 72 (48 bytes)");
  }
  // What decodes and encodes to the same text is right in every character.
  const bool decoded = EVP_DecodeBlock(bytes.data(), reinterpret_cast<const uint8_t*>(text.data()),
                                       static_cast<int>(text.size())) > 0;
  const bool right = decoded && base64(std::span(bytes).first(size + crc_size)) == text;
  const bool whole = right && load_le<uint32_t>(&bytes[size]) == crc32_gzip_refl(0, bytes.data(), size);
  TlsKey key{.sha384 = size == 48,
             .retained = hash == "00:",
             .secret = TlsSecret(std::span<const uint8_t>(bytes).first(size))};
  OPENSSL_cleanse(bytes.data(), bytes.size());
  if (!right) return invalid("what stands between the last colons is not base64");
  if (!whole) return invalid("its CRC-32 is wrong: a character was changed or lost");
  if (!key.retained && key.sha384 != (hash == "02:")) {
    return invalid("hash 01 (SHA-256) goes with 32 bytes and 02 (SHA-384) with 48, and it has " +
                   std::to_string(size));
  }
  return key;
}

Result<TlsKey> load_tls_key(const std::string& path) {
  const std::string file = "TLS key file " + quoted(path);
  // Not to be kept waiting by a pipe, nor led elsewhere by a link that somebody else made.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  if (fd < 0 && errno == ELOOP) return Error{ELOOP, file + " is a symbolic link; give the file it leads to"};
  if (fd < 0) return Error{errno, file + ": " + std::strerror(errno)};
  struct stat about {};
  std::array<char, max_file + 1> text;
  const bool regular = fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
  const ssize_t size = regular ? read(fd, text.data(), text.size()) : 0;
  const int code = errno;
  close(fd);
  if (!regular) return Error{EINVAL, file + " is not a regular file"};
  if (about.st_uid != geteuid() && about.st_uid != 0) {
    return Error{EACCES, file + " belongs to user " + std::to_string(about.st_uid) +
                             ", who can change it; chown it to user " + std::to_string(geteuid())};
  }
  if ((about.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return Error{EACCES, file + " is open to others than its owner; chmod 600 it"};
  }
  if (size < 0) return Error{code, file + ": " + std::strerror(code)};
  std::string_view line(text.data(), static_cast<size_t>(size));
  line.remove_prefix(std::min(line.find_first_not_of(blanks), line.size()));
  line = line.substr(0, line.find_last_not_of(blanks) + 1);
  Result<TlsKey> key = parse_tls_key(line);
  OPENSSL_cleanse(text.data(), text.size());
  if (!key) return Error{key.error().code, file + ": " + key.error().text};
  return key;
}

std::optional<TlsPsk> derive_tls_psk(const TlsKey& key, std::string_view host, std::string_view subsystem,
                                     unsigned version) {
  assert(host.size() <= nvme::max_nqn && subsystem.size() <= nvme::max_nqn && version <= 1);
  const TlsSecret input = key.retained ? key.secret : derive(key.sha384, key.secret, "tls13 HostNQN", host);
  const std::string hash = key.sha384 ? "02" : "01";
  const std::string names = std::string(host) + ' ' + std::string(subsystem);
  TlsPsk psk;
  psk.identity = "NVMe" + std::to_string(version) + 'R' + hash + ' ' + names;
  std::string context = psk.identity;
  if (version == 1) {
    const std::string digest = base64(hmac(key.sha384, input.bytes(), names + " NVMe-over-Fabrics").bytes());
    psk.identity += ' ' + digest;
    context = hash + ' ' + digest;
  }
  if (context.size() > 255) return std::nullopt;
  psk.secret = derive(key.sha384, input, "tls13 nvme-tls-psk", context);
  return psk;
}

std::optional<TlsIdentity> parse_tls_identity(std::string_view text) {
  const bool known = text.starts_with("NVMe0R0") || text.starts_with("NVMe1R0");
  const size_t first = text.find(' ');
  const size_t second = text.find(' ', first + 1);
  if (!known || first != 8 || second == std::string_view::npos) return std::nullopt;
  TlsIdentity parsed{.version = static_cast<unsigned>(text[4] - '0'),
                     .host = text.substr(first + 1, second - first - 1),
                     .subsystem = text.substr(second + 1)};
  parsed.subsystem = parsed.subsystem.substr(0, parsed.subsystem.find(' '));
  if (parsed.host.empty() || parsed.host.size() > nvme::max_nqn || parsed.subsystem.size() > nvme::max_nqn)
    return std::nullopt;
  return parsed;
}

}  // namespace nvsock
