#include "csd/target/host_keys.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "libnvsock/base/quoted.hpp"
#include "libnvsock/nvme/queue_entry.hpp"

namespace nvsock::csd {
namespace {

constexpr size_t max_hosts = 4096;
constexpr std::string_view nqn_prefix = "nqn.";

bool is_host(std::string_view name) {
  return name.starts_with(nqn_prefix) && name.size() <= nvme::max_nqn && name.find(' ') == name.npos;
}

bool is_directory(const std::string& path) {
  struct stat about {};
  return stat(path.c_str(), &about) == 0 && S_ISDIR(about.st_mode);
}

class Loader {
 public:
  Result<void> add(const std::string& value);
  TlsKeys take() { return std::move(keys_); }

 private:
  Result<void> add_common(const std::string& file);
  Result<void> add_host(const std::string& host, const std::string& file);
  Result<void> add_directory(const std::string& path);
  Result<TlsKey> load(const std::string& file);

  TlsKeys keys_;
  std::string first_;  // file
  bool sha384_ = false;
};

Result<void> Loader::add(const std::string& value) {
  const size_t middle = value.find('=');
  if (value.starts_with(nqn_prefix) && middle != value.npos)
    return add_host(value.substr(0, middle), value.substr(middle + 1));
  return is_directory(value) ? add_directory(value) : add_common(value);
}

Result<void> Loader::add_common(const std::string& file) {
  if (keys_.common)
    return Error{EINVAL, "TLS key file " + quoted(file) + " would be the second one for all hosts"};
  const auto key = load(file);
  if (!key) return key.error();
  keys_.common = *key;
  return {};
}

Result<void> Loader::add_host(const std::string& host, const std::string& file) {
  if (!is_host(host)) {
    return Error{EINVAL, "TLS key file " + quoted(file) + ": " + quoted(host) +
                             " is not the NQN of a host (nqn. and more, at most 223 bytes, no blank)"};
  }
  if (keys_.by_host.size() == max_hosts)
    return Error{ENOSPC, "TLS keys for more than " + std::to_string(max_hosts) + " hosts"};
  const auto key = load(file);
  if (!key) return key.error();
  if (!keys_.by_host.emplace(host, *key).second)
    return Error{EEXIST, "TLS key file " + quoted(file) + ": host " + quoted(host) + " has a key already"};
  return {};
}

Result<void> Loader::add_directory(const std::string& path) {
  const std::string which = "TLS key directory " + quoted(path);
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat about {};
  if (fd < 0 || fstat(fd, &about) != 0) return Error{errno, which + ": " + std::strerror(errno)};
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(fd), closedir);
  if (!entries) return Error{ENOMEM, which + ": " + std::strerror(ENOMEM)};
  if (about.st_uid != geteuid() && about.st_uid != 0)
    return Error{EACCES, which + " belongs to user " + std::to_string(about.st_uid) +
                             ", who can change it; chown it to user " + std::to_string(geteuid())};
  if ((about.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return Error{EACCES, which + " can be changed by others than its owner; chmod go-w it"};
  const std::string folder = path + '/';
  bool any = false;
  while (const dirent* const entry = readdir(entries.get())) {
    const std::string name = entry->d_name;
    if (name.starts_with('.')) continue;
    if (const auto added = add_host(name, folder + name); !added) return added;
    any = true;
  }
  if (!any) return Error{ENOENT, which + " is empty; a file in it has the NQN of its host for a name"};
  return {};
}

// TLS chooses the cipher suite before the key, so all keys have to be for one.
Result<TlsKey> Loader::load(const std::string& file) {
  auto key = load_tls_key(file);
  if (!key) return key;
  if (first_.empty()) {
    first_ = file;
    sha384_ = key->sha384;
  }
  if (key->sha384 == sha384_) return key;
  return Error{EINVAL, "TLS key files " + quoted(first_) + " and " + quoted(file) +
                           " have keys of 32 and 48 bytes; a target's are all of one size"};
}

}  // namespace

Result<TlsKeys> load_host_keys(const std::vector<std::string>& values) {
  Loader loader;
  for (const std::string& value : values) {
    if (const auto added = loader.add(value); !added) return added.error();
  }
  return loader.take();
}

}  // namespace nvsock::csd
