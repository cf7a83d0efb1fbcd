#include "csd/sockets/name_query.hpp"

#include <ares.h>
#include <sys/time.h>

#include <algorithm>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <cstring>
#include <map>
#include <utility>

namespace nvsock::csd {
namespace {

using asio::posix::stream_descriptor;
using std::chrono::steady_clock;

// A name may have many; a client tries each for up to minutes.
constexpr size_t max_addresses = 8;

// A name server has 2 s, then each 4 s, then 8 s: what c-ares 1.34 does. 1.18 waits for 75 s, and does not
// know the options of resolv.conf(5) for that.
constexpr int first_timeout_ms = 2000;
constexpr int tries = 3;
// With many name servers and search domains; natively two silent ones take 20 s.
constexpr std::chrono::seconds longest{30};

// c-ares counts its users; nothing is left to do at the end on this system.
bool library_ready() {
  static const bool ready = ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS;
  return ready;
}

struct Question {
  int family = AF_UNSPEC;
  std::optional<ResolvedName> answer;
};

// c-ares takes a number for what it is, whatever the family it is asked for.
bool fits(const ares_addrinfo_node& found, int family) {
  return found.ai_addrlen <= sizeof(sockaddr_storage) && (family == AF_UNSPEC || family == found.ai_family);
}

ResolvedName take(ares_addrinfo* found, int family) {
  ResolvedName name;
  int ttl = INT32_MAX;
  for (const ares_addrinfo_node* one = found->nodes; one != nullptr; one = one->ai_next) {
    if (!fits(*one, family) || name.addresses.size() == max_addresses) continue;
    SocketAddress& address = name.addresses.emplace_back();
    std::memcpy(&address.bytes, one->ai_addr, one->ai_addrlen);
    address.size = one->ai_addrlen;
    ttl = std::min(ttl, one->ai_ttl);
  }
  if (!name.addresses.empty()) name.ttl = std::chrono::seconds(std::max(ttl, 0));
  ares_freeaddrinfo(found);
  return name;
}

// The answer comes from within, later, or when the channel is destroyed.
void ask(ares_channel channel, const std::string& node, relay_v2::Family family, Question& question) {
  ares_addrinfo_hints hints{};
  hints.ai_family = family == relay_v2::Family::ipv4   ? AF_INET
                    : family == relay_v2::Family::ipv6 ? AF_INET6
                                                       : AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;  // one of each address
  question.family = hints.ai_family;
  ares_getaddrinfo(
      channel, node.c_str(), nullptr, &hints,
      [](void* argument, int, int, ares_addrinfo* found) {
        auto& asked = *static_cast<Question*>(argument);
        asked.answer = found != nullptr ? take(found, asked.family) : ResolvedName{};
      },
      &question);
}

}  // namespace

// Destroyed when the query is and no handler is queued any more; closed before, so that nothing happens then.
class NameQuery::Channel : public std::enable_shared_from_this<Channel> {
 public:
  Channel(asio::io_context& loop, const NetworkNamespace& where, Answer answer)
      : loop_(loop), where_(where), answer_(std::move(answer)), timer_(loop) {}
  ~Channel() { close(); }

  std::optional<ResolvedName> start(const NameServers& servers, const std::string& node,
                                    relay_v2::Family family) {
    ares_options options{};
    std::string path = servers.resolv_conf;
    int given =
        ARES_OPT_SOCK_STATE_CB | ARES_OPT_UDP_PORT | ARES_OPT_TCP_PORT | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES;
    options.sock_state_cb = [](void* self, int fd, int readable, int writable) {
      static_cast<Channel*>(self)->watch(fd, readable != 0, writable != 0);
    };
    options.sock_state_cb_data = this;
    options.timeout = first_timeout_ms;
    options.tries = tries;
    options.udp_port = options.tcp_port = servers.port;
    if (!path.empty()) {
      options.resolvconf_path = path.data();
      given |= ARES_OPT_RESOLVCONF;
    }
    if (!library_ready() || ares_init_options(&channel_, &options, given) != ARES_SUCCESS) {
      channel_ = nullptr;
      return ResolvedName{};
    }
    {
      const NetworkNamespace::Visit inside(where_);  // c-ares makes its sockets by itself
      // Asking outside would tell the host's network what is asked inside.
      if (!inside) return ResolvedName{};
      ask(channel_, node, family, question_);
    }
    if (question_.answer) return std::move(*question_.answer);
    arm();
    return std::nullopt;
  }

  void close() {
    answer_ = nullptr;
    timer_.cancel();
    if (channel_ != nullptr) ares_destroy(std::exchange(channel_, nullptr));
  }

 private:
  struct Watched {
    explicit Watched(asio::io_context& loop) : descriptor(loop) {}
    ~Watched() {
      if (descriptor.is_open()) descriptor.release();  // c-ares closes it
    }
    stream_descriptor descriptor;
    bool readable = false, writable = false;  // what c-ares waits for
    bool awaits_readable = false, awaits_writable = false;
  };

  // c-ares says what it waits for, before it closes a socket too.
  void watch(int fd, bool readable, bool writable) {
    if (!readable && !writable) {
      watched_.erase(fd);
      return;
    }
    auto& socket = watched_[fd];
    if (!socket) {
      socket = std::make_shared<Watched>(loop_);
      asio::error_code failed;
      socket->descriptor.assign(fd, failed);  // then the name server is as good as silent
    }
    socket->readable = readable;
    socket->writable = writable;
    await(fd, socket);
  }

  void await(int fd, const std::shared_ptr<Watched>& socket) {
    if (!socket->descriptor.is_open()) return;
    if (socket->readable && !std::exchange(socket->awaits_readable, true))
      await(fd, socket, stream_descriptor::wait_read);
    if (socket->writable && !std::exchange(socket->awaits_writable, true))
      await(fd, socket, stream_descriptor::wait_write);
  }

  void await(int fd, const std::shared_ptr<Watched>& socket, stream_descriptor::wait_type what) {
    // A descriptor's number may be in use anew when its handler runs: the object tells.
    socket->descriptor.async_wait(what, [self = shared_from_this(), fd, what,
                                         weak = std::weak_ptr(socket)](const asio::error_code& cancelled) {
      const auto here = weak.lock();
      if (cancelled || !here || self->channel_ == nullptr) return;
      const bool reads = what == stream_descriptor::wait_read;
      (reads ? here->awaits_readable : here->awaits_writable) = false;
      self->process(reads && here->readable ? fd : ARES_SOCKET_BAD,
                    !reads && here->writable ? fd : ARES_SOCKET_BAD);
    });
  }

  void arm() {
    const auto left = std::max(steady_clock::duration::zero(), deadline_ - steady_clock::now());
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(left).count();
    timeval next{};
    timeval most{.tv_sec = us / 1'000'000, .tv_usec = us % 1'000'000};
    const timeval& wait = *ares_timeout(channel_, &most, &next);
    timer_.expires_after(std::chrono::seconds(wait.tv_sec) + std::chrono::microseconds(wait.tv_usec));
    timer_.async_wait([self = shared_from_this()](const asio::error_code& cancelled) {
      if (cancelled || self->channel_ == nullptr) return;
      if (steady_clock::now() >= self->deadline_) {
        ares_cancel(self->channel_);
        self->settle();
      } else {
        self->process(ARES_SOCKET_BAD, ARES_SOCKET_BAD);
      }
    });
  }

  void process(int readable, int writable) {
    {
      const NetworkNamespace::Visit inside(where_);
      if (!inside) {
        ares_cancel(channel_);
      } else {
        ares_process_fd(channel_, readable, writable);
      }
    }
    settle();
  }

  // c-ares must not be destroyed from within its callbacks: they leave a result, and this tells it.
  void settle() {
    if (question_.answer)
      return std::exchange(answer_, nullptr)(std::move(*question_.answer));  // last: it may destroy all
    for (const auto& [fd, socket] : watched_) await(fd, socket);
    arm();
  }

  asio::io_context& loop_;
  const NetworkNamespace& where_;
  Answer answer_;
  ares_channel channel_ = nullptr;  // null: not asking, or closed
  asio::steady_timer timer_;
  const steady_clock::time_point deadline_ = steady_clock::now() + longest;
  std::map<int, std::shared_ptr<Watched>> watched_;
  Question question_;
};

NameQuery::NameQuery(asio::io_context& loop, const NetworkNamespace& where, const NameServers& servers,
                     const std::string& node, relay_v2::Family family, Answer answer,
                     std::optional<ResolvedName>& answered)
    : channel_(std::make_shared<Channel>(loop, where, std::move(answer))) {
  answered = channel_->start(servers, node, family);
}

NameQuery::~NameQuery() {
  channel_->close();
}

ResolvedName NameQuery::ask_hosts_file(const std::string& node, relay_v2::Family family) {
  ares_channel channel = nullptr;
  ares_options options{};
  char files[] = "f";
  options.lookups = files;
  if (!library_ready() || ares_init_options(&channel, &options, ARES_OPT_LOOKUPS) != ARES_SUCCESS) return {};
  Question question;
  ask(channel, node, family, question);
  ares_destroy(channel);  // calls back at the latest
  return question.answer ? std::move(*question.answer) : ResolvedName{};
}

}  // namespace nvsock::csd
