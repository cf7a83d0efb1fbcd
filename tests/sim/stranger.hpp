// A host that wants what is others': it guesses handles, is told theirs, and calls itself by its own name;
// and a program on the very host it is after, that has read the handle in a trace and not the secret.
// Whatever they send, they reach no session but their own.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <vector>

#include "tests/sim/host.hpp"

namespace nvsock::sim {

class Stranger final : private Guest {
 public:
  // Until the faults end. All must outlive it.
  Stranger(const Site& site, Random random, const std::vector<std::unique_ptr<SimHost>>& hosts);
  ~Stranger();

 private:
  // The program on the host that is attacked.
  struct Impostor final : Guest {
    explicit Impostor(Stranger& stranger) : owner(stranger) {}
    const csd::HostName& name() const override { return *as; }
    void posted(Command& command) override { owner.posted_as_impostor(command); }
    void drive_restarted() override {}
    Stranger& owner;
    const csd::HostName* as = nullptr;
  };
  struct Sent : Command {
    Stranger* owner = nullptr;
    std::vector<uint8_t> bytes;
  };

  void act_later();
  void act();
  void attach(uint64_t handle, bool resume, Guest& as);
  void tx(uint64_t handle);
  void rx(uint64_t handle);
  Sent& make(const relay_v2::Call& call, size_t size);
  void submit(Sent& command, Guest& as);

  const csd::HostName& name() const override { return name_; }
  void posted(Command& command) override;
  void drive_restarted() override {}
  void posted_as_impostor(const Command& command);

  const Site site_;
  Random random_;
  const std::vector<std::unique_ptr<SimHost>>& hosts_;
  const csd::HostName name_{.id = {}, .nqn = "stranger"};
  const std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
  Impostor impostor_{*this};
  std::set<uint64_t> own_;  // handles that it has attached with, to sessions that may have ended
  std::map<const Command*, std::unique_ptr<Sent>> sent_;
};

}  // namespace nvsock::sim
