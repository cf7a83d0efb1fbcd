#include "csd/sockets/resolver.hpp"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

namespace nvsock::csd {
namespace {

// A name may have many; a client tries each for up to minutes.
constexpr size_t max_addresses = 8;

SocketAddresses look_up(const std::string& node, uint16_t port, relay_v2::Family family, SocketType type,
                        int flags) {
  addrinfo hints{};
  hints.ai_family = family == relay_v2::Family::ipv4   ? AF_INET
                    : family == relay_v2::Family::ipv6 ? AF_INET6
                                                       : AF_UNSPEC;
  hints.ai_socktype = type == SocketType::datagram ? SOCK_DGRAM : SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  SocketAddresses addresses;
  if (getaddrinfo(node.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return addresses;
  for (const addrinfo* one = found; one != nullptr && addresses.size() < max_addresses; one = one->ai_next) {
    if (one->ai_addrlen > sizeof(sockaddr_storage)) continue;
    SocketAddress& address = addresses.emplace_back();
    std::memcpy(&address.bytes, one->ai_addr, one->ai_addrlen);
    address.size = one->ai_addrlen;
  }
  freeaddrinfo(found);
  return addresses;
}

}  // namespace

// The thread may outlast the resolver, in getaddrinfo: `closed` keeps it from the loop, which may be gone.
struct Resolver::Shared {
  struct Job {
    std::string node;
    uint16_t port;
    relay_v2::Family family;
    SocketType type;
    std::function<void(SocketAddresses)> answer;
    asio::executor_work_guard<asio::io_context::executor_type> work;
  };

  explicit Shared(std::shared_ptr<const NetworkNamespace> inside) : where(std::move(inside)) {}

  const std::shared_ptr<const NetworkNamespace> where;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Job> jobs;  // the first is being looked up; only the loop's thread destroys jobs
  asio::io_context* loop = nullptr;
  bool closed = false;
};

Resolver::Resolver(asio::io_context& loop, std::shared_ptr<const NetworkNamespace> where)
    : loop_(loop), shared_(std::make_shared<Shared>(std::move(where))) {
  shared_->loop = &loop;
}

Resolver::~Resolver() {
  std::deque<Shared::Job> dropped;
  const std::lock_guard lock(shared_->mutex);
  shared_->closed = true;
  dropped.swap(shared_->jobs);
  shared_->changed.notify_all();
}

SocketAddresses Resolver::numeric(const relay_v2::Target& target) {
  // A scope is the number of an interface inside, which only the thread there can tell.
  if (target.node.find('%') != std::string_view::npos) return {};
  return look_up(std::string(target.node), target.port, target.family, target.type, AI_NUMERICHOST);
}

void Resolver::resolve(const relay_v2::Target& target, std::function<void(SocketAddresses)> answer) {
  if (!std::exchange(started_, true)) {
    // Signals are the business of the threads that expect them.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([shared = shared_] { work(shared); }).detach();
    } catch (const std::system_error&) {
      started_ = false;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  if (!started_) return asio::post(loop_, [answer = std::move(answer)] { answer({}); });
  const std::lock_guard lock(shared_->mutex);
  shared_->jobs.push_back({.node = std::string(target.node),
                           .port = target.port,
                           .family = target.family,
                           .type = target.type,
                           .answer = std::move(answer),
                           .work = asio::make_work_guard(loop_)});
  shared_->changed.notify_one();
}

void Resolver::work(const std::shared_ptr<Shared>& shared) {
  // Resolving in the host's namespace would tell the host's network what is asked inside.
  const bool inside = shared->where->enter();
  std::unique_lock lock(shared->mutex);
  while (true) {
    shared->changed.wait(lock, [&] { return shared->closed || !shared->jobs.empty(); });
    if (shared->closed) return;
    const Shared::Job& job = shared->jobs.front();
    const std::string node = job.node;
    const uint16_t port = job.port;
    const auto family = job.family;
    const auto type = job.type;
    lock.unlock();
    SocketAddresses addresses;
    if (inside) addresses = look_up(node, port, family, type, 0);
    lock.lock();
    if (shared->closed) return;
    asio::post(*shared->loop, [job = std::make_shared<Shared::Job>(std::move(shared->jobs.front())),
                               addresses = std::move(addresses)] { job->answer(addresses); });
    shared->jobs.pop_front();
  }
}

}  // namespace nvsock::csd
