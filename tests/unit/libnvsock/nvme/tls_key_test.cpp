// TLS keys as text and in files, and what is derived of them. The expected values come from the tests of
// libnvme, where they cover it, and from an implementation of HKDF-Expand-Label in Python.
#include "libnvsock/nvme/tls_key.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <fstream>

#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using test::expect_sentence;

const std::string host = "nqn.psk-test-host", subsystem = "nqn.psk-test-subsys";
const std::string names = host + ' ' + subsystem;
const std::string text32 = "VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ";
const std::string text48 = "VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3W2LxIcLXVsDn8kXZQ==";

std::string hex(const TlsSecret& secret) {
  std::string text;
  for (const uint8_t byte : secret.bytes()) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", byte);
    text += digits;
  }
  return text;
}

std::string with_hash(const std::string& hash, const std::string& base64) {
  return "NVMeTLSkey-1:" + hash + ':' + base64 + ':';
}

TEST(TlsKey, text_is_a_key_of_32_or_48_bytes) {
  const std::string start = "5512dbb6737d0106f65975b773dfb011ffc344bcf442e2dd6d8bc4870b5d5b03";
  for (const char* const hash : {"00", "01"}) {
    const auto key = parse_tls_key(with_hash(hash, text32));
    ASSERT_TRUE(key) << key.error().text;
    EXPECT_EQ(hex(key->secret), start);
    EXPECT_FALSE(key->sha384);
    EXPECT_EQ(key->retained, hash == std::string("00"));
  }
  const auto key = parse_tls_key(with_hash("02", text48));
  ASSERT_TRUE(key) << key.error().text;
  EXPECT_EQ(hex(key->secret), start + start.substr(32));
  EXPECT_TRUE(key->sha384 && !key->retained);
}

TEST(TlsKey, what_is_wrong_is_named) {
  const auto refused = [](const std::string& text, const char* why) {
    expect_sentence(parse_tls_key(text), why);
  };
  refused("", "it does not begin with \"NVMeTLSkey-1:\"");
  refused("DHHC-1:01:" + text32 + ":", "it does not begin with \"NVMeTLSkey-1:\"");
  refused("NVMeTLSkey-1:", "its hash is \"\", not 00, 01 or 02");
  refused(with_hash("03", text32), "its hash is \"03\", not 00, 01 or 02");
  refused(with_hash("1", text32), "its hash is \"1\", not 00, 01 or 02");
  refused("NVMeTLSkey-1:01:" + text32, "it does not end with a colon");
  refused(with_hash("01", text32.substr(1)), "it has 47 characters between the last colons, not 48");
  refused(with_hash("01", ""), "it has 0 characters between the last colons");
  refused(with_hash("01", text48),
          "hash 01 (SHA-256) goes with 32 bytes and 02 (SHA-384) with 48, and it has 48");
  refused(with_hash("02", text32), "goes with 32 bytes and 02 (SHA-384) with 48, and it has 32");
  std::string changed = text32;
  changed[7] = 'A';
  refused(with_hash("01", changed), "its CRC-32 is wrong");
  for (const char wrong : {'-', ' ', '=', '\n', '\0'}) {
    changed[7] = wrong;
    refused(with_hash("01", changed), "is not base64");
  }
  changed = text48;
  changed[69] = 'R';  // the same bytes, but not as they are written
  refused(with_hash("02", changed), "is not base64");
}

struct Vector {
  std::string key;
  unsigned version;
  std::string identity;
  std::string secret;
};

TEST(TlsKey, identity_and_secret_are_those_of_other_implementations) {
  const Vector vectors[] = {
      {with_hash("00", text32), 0, "NVMe0R01 " + names,
       "ec85300ba827726bd3bc4fc07f3a34aec5fe7c8ccac05fefc2f021c74e0df9ef"},
      {with_hash("00", text32), 1, "NVMe1R01 " + names + " quJVUJjp/BImWR0UQay/MjSfEgyAr6TyBOWybS/B404=",
       "a45d08ee4639c7570729bb3e57e905e466a49a15ece5401af906830c4d3bdb0b"},
      {with_hash("01", text32), 0, "NVMe0R01 " + names,
       "05c6503551ad136e6ee32e6eeb3f6d500b69701d84ec71e328f65c7f51566f68"},
      {with_hash("01", text32), 1, "NVMe1R01 " + names + " iSbjiStwJ/1TrTvDlt2fjFmzvsytOJelidNnA+X5lEU=",
       "8fc3c0badfd4c0c66fa3ca33aadd0314f85536cc9bc47338b60f3e6e563786ca"},
      {with_hash("02", text48), 0, "NVMe0R02 " + names,
       "f42ba63824cdfe421914c582921f85b5b5b7e2d4df084caeedc9be20b212e8bb"
       "0fe8a23e9d59a1c8fc6449da4970a78d"},
      {with_hash("02", text48), 1,
       "NVMe1R02 " + names + " QhW2+Rp6RzHlNtCslyRxMnwJ11tKKhz8JCAQpQ+XUD8f9td1VeH5h53yz2wKJG1a",
       "a2b2f943f479fc682555cec89857c80ed004ce92f32a973d5764155bb7e36b17"
       "a85368a0666d250afac9282dda2e62ca"},
  };
  for (const Vector& expected : vectors) {
    const auto psk = derive_tls_psk(*parse_tls_key(expected.key), host, subsystem, expected.version);
    ASSERT_TRUE(psk);
    EXPECT_EQ(psk->identity, expected.identity);
    EXPECT_EQ(hex(psk->secret), expected.secret) << expected.identity;
  }
}

TEST(TlsKey, only_version_1_takes_names_of_any_length) {
  const auto key = parse_tls_key(with_hash("01", text32));
  const std::string longest = "nqn." + std::string(219, 'x');
  EXPECT_TRUE(derive_tls_psk(*key, longest, std::string(22, 'x'), 0));
  EXPECT_FALSE(derive_tls_psk(*key, longest, std::string(23, 'x'), 0));
  EXPECT_TRUE(derive_tls_psk(*key, longest, longest, 1));
}

TEST(TlsKey, an_identity_names_both_ends) {
  for (const char* const text : {"NVMe0R01 a b", "NVMe1R02 a b digest"}) {
    const auto identity = parse_tls_identity(text);
    ASSERT_TRUE(identity) << text;
    EXPECT_EQ(identity->version, text[4] - '0');
    EXPECT_EQ(identity->host, "a");
    EXPECT_EQ(identity->subsystem, "b");
  }
  for (const char* const text :
       {"", "NVMe0R01", "NVMe0R01 a", "NVMe0R01  b", "NVMe2R01 a b", "NVMe0G01 a b", "NVMe0R011 a b"})
    EXPECT_FALSE(parse_tls_identity(text)) << text;
  EXPECT_FALSE(parse_tls_identity("NVMe0R01 a " + std::string(224, 'b')));
}

class TlsKeyFile : public ::testing::Test {
 protected:
  TlsKeyFile() {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    path_ = folder_ + "/key";
  }
  ~TlsKeyFile() override {
    unlink(path_.c_str());
    rmdir(folder_.c_str());
  }
  void write(const std::string& text) const {
    std::ofstream(path_) << text;
    chmod(path_.c_str(), 0600);
  }

  std::string folder_ = ::testing::TempDir() + "nvsock-test-XXXXXX";
  std::string path_;
};

TEST_F(TlsKeyFile, holds_one_key_with_blanks_around_it) {
  for (const char* const end : {"", "\n", " \r\n\n"}) {
    write(" " + with_hash("01", text32) + end);
    const auto key = load_tls_key(path_);
    ASSERT_TRUE(key) << key.error().text;
    EXPECT_EQ(key->secret.bytes().size(), 32u);
  }
  write(with_hash("01", text32) + "\n" + with_hash("01", text32) + "\n");
  EXPECT_FALSE(load_tls_key(path_));
  for (const std::string& nothing : {std::string(), std::string("\n"), std::string(4096, ' ')}) {
    write(nothing);
    expect_sentence(load_tls_key(path_), "it does not begin with");
  }
}

TEST_F(TlsKeyFile, is_for_its_owner_only_and_a_file) {
  expect_sentence(load_tls_key(path_), "\"" + path_ + "\": No such file or directory");
  write(with_hash("01", text32));
  for (const mode_t open : {0640, 0604, 0620}) {
    chmod(path_.c_str(), open);
    expect_sentence(load_tls_key(path_), "is open to others than its owner; chmod 600 it");
  }
  chmod(path_.c_str(), 0400);
  EXPECT_TRUE(load_tls_key(path_));
  const std::string link = folder_ + "/link";
  ASSERT_EQ(symlink(path_.c_str(), link.c_str()), 0);
  expect_sentence(load_tls_key(link), "/link\" is a symbolic link; give the file it leads to");
  unlink(link.c_str());
  if (geteuid() == 0) {
    ASSERT_EQ(chown(path_.c_str(), 65534, 0), 0);
    expect_sentence(load_tls_key(path_), "belongs to user 65534, who can change it; chown it to user 0");
  }
  unlink(path_.c_str());
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  expect_sentence(load_tls_key(path_), "is not a regular file");
  expect_sentence(load_tls_key("/"), "is not a regular file");
}

}  // namespace
}  // namespace nvsock
