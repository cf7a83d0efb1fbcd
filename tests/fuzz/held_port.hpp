// A command port whose drive is the fuzz input: it holds commands until the run completes them.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "libnvsock/nvme/command_port.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace nvsock::fuzz {

class HeldPort final : public CommandPort {
 public:
  // `examine` sees each command as it is submitted.
  HeldPort(PortTraits traits, std::function<void(const Command&)> examine)
      : traits_(traits), examine_(std::move(examine)) {}

  void submit(Command& command) override {
    check(command.done != nullptr && command.timeout.count() > 0, "a command can complete");
    for (const Command* other : held_) {
      check(other != &command && (command.data == nullptr || other->data != command.data),
            "the drive has a command and a buffer once");
    }
    examine_(command);
    held_.push_back(&command);
  }
  void ring() override {}
  bool stop() override {
    held_.clear();
    return true;
  }
  PortTraits traits() const override { return traits_; }
  std::string describe() const override { return "held"; }

  size_t held() const { return held_.size(); }
  Command& at(size_t index) { return *held_[index]; }
  void complete(size_t index, const Completion& completion) {
    Command& command = *held_[index];
    held_.erase(held_.begin() + static_cast<ptrdiff_t>(index));
    command.completion = completion;
    command.done(command);
  }
  void end_batch() { client_->on_batch_end(); }

 private:
  const PortTraits traits_;
  const std::function<void(const Command&)> examine_;
  std::vector<Command*> held_;
};

}  // namespace nvsock::fuzz
