#include "csd/sockets/resolver.hpp"

#include <netdb.h>

#include <algorithm>
#include <asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

namespace nvsock::csd {

using std::chrono::steady_clock;

// One name that one client asks for.
struct Resolver::Name : Link<Name> {
  enum class State {
    fresh,    // in Share::fresh, until its turn comes
    waiting,  // in Share::waiting, until one that is asked ends
    asked,    // has a place among those; `query` follows, at once or with its turn
  };

  Name(Resolver& resolver, Share& whose, Key what) : owner(resolver), share(whose), key(std::move(what)) {}

  Resolver& owner;
  Share& share;
  const Key key;
  State state = State::fresh;
  List<Asker> askers;  // never empty
  std::unique_ptr<NameQuery> query;
};

// What one client asks for. In Resolver::turns_ while `fresh` is not empty.
struct Resolver::Share : Link<Share> {
  explicit Share(Client whose) : client(whose) {}

  const Client client;
  std::map<Key, std::unique_ptr<Name>> names;  // never empty
  List<Name> fresh;
  List<Name> waiting;
  size_t waiting_count = 0;
  size_t asked_count = 0;
};

void Resolver::Asker::withdraw() {
  unlist();
  Name* const name = std::exchange(name_, nullptr);
  if (name != nullptr && name->askers.empty()) name->owner.remove(*name);
}

Resolver::Resolver(asio::io_context& loop, std::shared_ptr<const NetworkNamespace> where, NameServers servers)
    : loop_(loop), where_(std::move(where)), servers_(std::move(servers)) {}

Resolver::~Resolver() {
  for (const auto& [client, share] : shares_) {
    for (const auto& [key, name] : share->names) {
      while (!name->askers.empty()) name->askers.pop_front().name_ = nullptr;
    }
  }
}

SocketAddresses Resolver::numeric(const relay_v2::Target& target) const {
  addrinfo hints{};
  hints.ai_family = target.family == relay_v2::Family::ipv4   ? AF_INET
                    : target.family == relay_v2::Family::ipv6 ? AF_INET6
                                                              : AF_UNSPEC;
  hints.ai_socktype = target.type == SocketType::datagram ? SOCK_DGRAM : SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  // A scope is the name or number of an interface inside.
  std::optional<NetworkNamespace::Visit> inside;
  if (target.node.find('%') != std::string_view::npos && !inside.emplace(*where_)) return {};
  addrinfo* found = nullptr;
  SocketAddresses addresses;
  if (getaddrinfo(std::string(target.node).c_str(), std::to_string(target.port).c_str(), &hints, &found) != 0)
    return addresses;
  SocketAddress& address = addresses.emplace_back();  // a number is one address
  std::memcpy(&address.bytes, found->ai_addr, found->ai_addrlen);
  address.size = found->ai_addrlen;
  freeaddrinfo(found);
  return addresses;
}

void Resolver::resolve(Client client, const relay_v2::Target& target, Asker& asker) {
  auto& share = shares_[client];
  if (!share) share = std::make_unique<Share>(client);
  Key key(target.node, target.family);
  auto& name = share->names[key];
  if (!name) {
    name = std::make_unique<Name>(*this, *share, std::move(key));
    list_new(*name);
  }
  name->askers.push_back(asker);
  asker.name_ = name.get();
}

// Names begin from the loop, so that one that is taken back in the same breath costs no question.
void Resolver::list_new(Name& name) {
  name.share.fresh.push_back(name);
  Link<Share>& share = name.share;
  if (share.listed()) return;
  if (turns_.empty()) post_turn();
  turns_.push_back(share);
}

void Resolver::post_turn() {
  asio::post(loop_, [this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) take_turn();
  });
}

// One name, of the clients in turn: thousands of one hold up neither the loop nor another's.
void Resolver::take_turn() {
  if (turns_.empty()) return;  // taken back
  Share& share = turns_.pop_front();
  Name& name = share.fresh.pop_front();
  if (!share.fresh.empty()) turns_.push_back(share);
  if (!turns_.empty()) post_turn();
  begin(name);
}

void Resolver::begin(Name& name) {
  Share& share = name.share;
  const auto& [node, family] = name.key;
  if (name.state == Name::State::fresh) {
    if (const ResolvedName* const known = recall(name.key)) return answer(name, 0, known->addresses);
    if (share.asked_count == max_asked) {
      const ResolvedName known = NameQuery::ask_hosts_file(node, family);
      if (!known.addresses.empty()) return answer(name, known);
      if (share.waiting_count == max_waiting) return answer(name, ENOBUFS, {});
      name.state = Name::State::waiting;
      share.waiting.push_back(name);
      ++share.waiting_count;
      return;
    }
    name.state = Name::State::asked;
    ++share.asked_count;
  }
  std::optional<ResolvedName> known;
  name.query = std::make_unique<NameQuery>(
      loop_, *where_, servers_, node, family,
      [this, &name](const ResolvedName& found) { answer(name, found); }, known);
  if (known) answer(name, *known);
}

void Resolver::answer(Name& name, const ResolvedName& found) {
  keep(name.key, found);
  answer(name, found.addresses.empty() ? EHOSTUNREACH : 0, found.addresses);
}

// Last: those who are told may destroy the resolver, and each other.
void Resolver::answer(Name& name, int error, const SocketAddresses& addresses) {
  const SocketAddresses copy = addresses;  // they may be the query's, or what is kept
  List<Asker> askers;
  while (!name.askers.empty()) {
    Asker& asker = name.askers.pop_front();
    asker.name_ = nullptr;
    askers.push_back(asker);
  }
  remove(name);
  while (!askers.empty()) askers.pop_front().on_resolved(error, copy);
}

void Resolver::remove(Name& name) {
  Share& share = name.share;
  if (name.state == Name::State::waiting) --share.waiting_count;
  if (name.state == Name::State::asked) {
    if (share.waiting.empty()) {
      --share.asked_count;
    } else {  // its place goes to the one that waits longest
      Name& next = share.waiting.pop_front();
      --share.waiting_count;
      next.state = Name::State::asked;
      list_new(next);
    }
  }
  share.names.erase(share.names.find(name.key));
  if (share.fresh.empty()) static_cast<Link<Share>&>(share).unlist();
  if (share.names.empty()) shares_.erase(shares_.find(share.client));
}

const ResolvedName* Resolver::recall(const Key& key) const {
  const auto found = kept_.find(key);
  return found == kept_.end() || found->second.until <= steady_clock::now() ? nullptr : &found->second.found;
}

void Resolver::keep(const Key& key, const ResolvedName& found) {
  if (found.addresses.empty() || found.ttl.count() == 0) return;
  const auto now = steady_clock::now();
  if (kept_.size() == max_kept) {
    std::erase_if(kept_, [&](const auto& one) { return one.second.until <= now; });
    if (kept_.size() == max_kept)
      kept_.erase(std::ranges::min_element(kept_, {}, [](const auto& one) { return one.second.until; }));
  }
  kept_.insert_or_assign(key, Kept{.found = found, .until = now + std::min(found.ttl, longest_kept)});
}

}  // namespace nvsock::csd
