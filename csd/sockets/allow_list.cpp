#include "csd/sockets/allow_list.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "libnvsock/base/quoted.hpp"

namespace nvsock::csd {

Result<void> AllowList::add(std::string_view text) {
  const auto wrong = [&](const std::string& why) {
    return Error{EINVAL, "allowed address " + quoted(text) + ": " + why};
  };
  Result<EndpointPattern> entry = parse_endpoint_pattern(text);
  if (!entry) return wrong(entry.error().text);
  // A name may have other addresses tomorrow, and whoever answers for it would decide what is reached.
  if (entry->host && entry->host->kind == Endpoint::Kind::name) {
    return wrong("an address is expected, not a name");
  }
  entries_.push_back(std::move(*entry));
  return {};
}

bool AllowList::allows(const SocketAddress& address) const {
  if (entries_.empty()) return empty_ == Empty::everything;
  const Endpoint place = endpoint_of(address.bytes);
  return std::ranges::any_of(entries_, [&](const EndpointPattern& entry) { return entry.matches(place); });
}

}  // namespace nvsock::csd
