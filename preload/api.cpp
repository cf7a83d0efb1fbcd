// The C API of nvsock.h.
#include <string.h>
#include <sys/socket.h>

#include "preload/mount.hpp"
#include "preload/nvsock.h"
#include "preload/settings.hpp"

namespace nvsock::preload {
namespace {

constexpr std::size_t kNameMax = 300;  // a DNS name of 253 characters, a service, brackets

// One component of a path: nothing that would lead elsewhere.
bool can_be_named(std::string_view part) {
  return !part.empty() && part.find('/') == std::string_view::npos;
}

}  // namespace

NVSOCK_HOOK int nvsock_connect(const char* host, const char* service, int flags) {
  if (host == nullptr || service == nullptr || (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0) {
    return fail(EINVAL);
  }
  const std::string_view address = host;
  if (!can_be_named(address) || !can_be_named(service)) return fail(EINVAL);
  const bool bare_v6 = address.front() != '[' && address.find(':') != std::string_view::npos;
  Text<kNameMax> name;
  name << "tcp/" << (bare_v6 ? "[" : "") << address << (bare_v6 ? "]:" : ":") << service;
  if (!name.complete()) return fail(EINVAL);

  Opened opened = open_connection(name.view(), (flags & SOCK_NONBLOCK) != 0 ? O_NONBLOCK : 0);
  if (!opened.file.valid()) return fail(opened.error);
  if ((flags & SOCK_CLOEXEC) == 0) ::fcntl(opened.file.get(), F_SETFD, 0);
  return opened.file.release();
}

NVSOCK_HOOK void nvsock_bypass(int on) {
  bypass(on != 0);
}

}  // namespace nvsock::preload
