// Names inside the drive, for many clients, none of which can hold up another.
//
// Names are asked for all at once (csd/sockets/name_query.hpp), so that none waits for another; what is
// bounded is how many. Each client has a share of its own: `max_asked` names, `max_waiting` more that wait
// for one of those to end, and beyond that ENOBUFS at once. A name that hosts(5) has, or that was answered
// lately, is never among those that wait. Askers of one client for one name share the question; the last one
// that goes takes it back, and its memory with it.
//
// What name servers answer is kept for as long as they say, at most `longest_kept`, and at most `max_kept`
// names of it. Failures and hosts(5) are not kept: what was just put right shall be seen.
//
// Threads: event loop only. Never blocks.
#pragma once

#include <asio/io_context.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "csd/sockets/name_query.hpp"
#include "csd/sockets/netns.hpp"
#include "csd/sockets/service.hpp"
#include "libnvsock/base/list.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock::csd {

class Resolver {
  struct Name;

 public:
  static constexpr size_t max_asked = 64;  // 5 MB, and a socket for each name server
  static constexpr size_t max_waiting = 448;
  static constexpr size_t max_kept = 256;
  static constexpr std::chrono::seconds longest_kept{10};

  // Who wants a name. Its end takes the question back.
  class Asker : private Link<Asker> {
   public:
    Asker() = default;
    Asker(const Asker&) = delete;
    Asker& operator=(const Asker&) = delete;

   protected:
    virtual ~Asker() { withdraw(); }
    // Takes the question back, if there is one: nobody is told.
    void withdraw();

   private:
    friend class Resolver;
    friend class List<Asker>;

    // Once, from the loop. May destroy the asker, and the resolver. error: 0; EHOSTUNREACH, the name cannot
    // be resolved; ENOBUFS, the client asks for too many. Ports of the addresses are 0.
    virtual void on_resolved(int error, const SocketAddresses& addresses) = 0;

    Name* name_ = nullptr;  // null: not asking
  };

  Resolver(asio::io_context& loop, std::shared_ptr<const NetworkNamespace> where, NameServers servers);
  ~Resolver();  // those who ask are not told
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // The addresses of a node that is an address already, with the target's port; empty if it is a name, or
  // wrong for its family.
  SocketAddresses numeric(const relay_v2::Target& target) const;
  // Tells from the loop, never from within. REQUIRES: the asker is not asking.
  void resolve(Client client, const relay_v2::Target& target, Asker& asker);

 private:
  using Key = std::pair<std::string, relay_v2::Family>;
  struct Share;
  struct Kept {
    ResolvedName found;
    std::chrono::steady_clock::time_point until;
  };

  void list_new(Name& name);
  void post_turn();
  void take_turn();
  void begin(Name& name);
  void answer(Name& name, int error, const SocketAddresses& addresses);
  void answer(Name& name, const ResolvedName& found);
  void remove(Name& name);
  const ResolvedName* recall(const Key& key) const;
  void keep(const Key& key, const ResolvedName& found);

  asio::io_context& loop_;
  const std::shared_ptr<const NetworkNamespace> where_;
  const NameServers servers_;
  std::map<Key, Kept> kept_;
  std::map<Client, std::unique_ptr<Share>> shares_;               // of clients that ask
  List<Share> turns_;                                             // shares with new names
  const std::shared_ptr<char> alive_ = std::make_shared<char>();  // watched by what is posted
};

}  // namespace nvsock::csd
