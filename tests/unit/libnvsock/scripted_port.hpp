// A drive whose every answer the test gives: commands wait here until the test completes them, in any
// order and with any status. What must hold for every command is checked when it arrives.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "libnvsock/host/dialect_v1.hpp"

namespace nvsock::test {

class ScriptedPort final : public CommandPort {
 public:
  explicit ScriptedPort(PortTraits traits) : traits_(traits) {}
  // Frees the commands the dialect left to the drive. REQUIRES: the dialect is gone.
  ~ScriptedPort() override {
    for (Command* command : pending_) delete static_cast<CommandV1*>(command);
  }

  void submit(Command& command) override {
    check(command);
    placed_.push_back(&command);
  }
  void ring() override {
    pending_.insert(pending_.end(), placed_.begin(), placed_.end());
    placed_.clear();
  }
  bool stop() override { return pending_.empty() && placed_.empty(); }
  PortTraits traits() const override { return traits_; }
  std::string describe() const override { return "scripted drive"; }

  // Commands the drive has and did not complete, oldest first.
  std::vector<Command*> opens() const { return select(relay_v1::function::open, 0); }
  std::vector<Command*> closes() const { return select(relay_v1::function::close, 0); }
  std::vector<Command*> reads() const { return select(relay_v1::function::comm, relay_v1::comm_read); }
  std::vector<Command*> writes() const { return select(relay_v1::function::comm, relay_v1::comm_write); }
  std::vector<Command*> reads_of(uint32_t descriptor) const {
    std::vector<Command*> all = reads();
    std::erase_if(all, [&](const Command* command) { return command->cdw13 != descriptor; });
    return all;
  }
  size_t pending() const { return pending_.size(); }
  size_t submitted() const { return submitted_; }

  static std::string payload(const Command& write) {
    return {static_cast<const char*>(write.data), write.cdw12};
  }

  // --- answers; each is a batch of its own unless inside batch() ---
  void finish(Command* command, Completion completion = {}) {
    ASSERT_EQ(std::count(pending_.begin(), pending_.end(), command), 1)
        << "completed twice, or never submitted";
    std::erase(pending_, command);
    if (completion.ok() && command->cdw10 == relay_v1::function::close) closed_.erase(command->cdw13);
    command->completion = completion;
    command->done(*command);
    if (!batching_) client_->on_batch_end();
  }
  void refuse(Command* command, uint16_t status) {
    finish(command, {.error = 0, .status = status, .dw0 = 0});
  }
  void lose(Command* command, int error) { finish(command, {.error = error, .status = 0, .dw0 = 0}); }
  void answer_open(Command* command, uint32_t descriptor) {
    relay_v1::store_u32(command->data, descriptor);
    finish(command);
  }
  // No bytes: end of stream.
  void answer_read(Command* command, std::string_view bytes) {
    relay_v1::store_u32(command->data, static_cast<uint32_t>(bytes.size()));
    std::copy(bytes.begin(), bytes.end(), static_cast<char*>(command->data) + relay_v1::read_header);
    finish(command);
  }
  template <typename Answers>
  void batch(Answers answers) {
    batching_ = true;
    answers();
    batching_ = false;
    client_->on_batch_end();
  }

  // Answers everything, as a drive does whose peers have all gone, until the host wants nothing more.
  void settle() {
    while (!pending_.empty()) {
      Command* command = pending_.front();
      if (command->cdw10 == relay_v1::function::open) {
        refuse(command, status::internal_error);
      } else if (command->cdw10 == relay_v1::function::comm && command->cdw11 == relay_v1::comm_read) {
        answer_read(command, "");
      } else {
        finish(command);
      }
    }
  }

 private:
  void check(const Command& command) {
    ++submitted_;
    EXPECT_EQ(command.opcode, opcode::relay_v1);
    EXPECT_EQ(command.nsid, 0u);
    EXPECT_EQ(command.data_length, 4096u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(command.data) % 4096, 0u);
    EXPECT_GE(command.timeout, std::chrono::hours(24)) << "its expiry would reset the controller";
    EXPECT_NE(command.done, nullptr);
    EXPECT_EQ(command.cdw14, 0u);
    EXPECT_EQ(command.cdw15, 0u);
    const bool read = command.cdw10 == relay_v1::function::comm && command.cdw11 == relay_v1::comm_read;
    const bool write = command.cdw10 == relay_v1::function::comm && command.cdw11 == relay_v1::comm_write;
    EXPECT_EQ(command.may_block, read);
    EXPECT_TRUE(write ? command.cdw12 >= 1 && command.cdw12 <= 4096 : command.cdw12 == 0) << command.cdw12;
    for (const auto* others : {&pending_, &placed_}) {
      for (const Command* other : *others)
        EXPECT_NE(other->data, command.data) << "a page in use by the drive";
    }
    EXPECT_FALSE((read || write) && closed_.count(command.cdw13) > 0) << "descriptor used after its close";
    EXPECT_FALSE(read && reads_of(command.cdw13).size() >= traits_.max_reads_per_stream);
    if (command.cdw10 == relay_v1::function::close) closed_.insert(command.cdw13);
  }

  std::vector<Command*> select(uint32_t function, uint32_t direction) const {
    std::vector<Command*> found;
    for (Command* command : pending_) {
      if (command->cdw10 == function && command->cdw11 == direction) found.push_back(command);
    }
    return found;
  }

  const PortTraits traits_;
  std::vector<Command*> placed_;  // submitted, not rung for
  std::vector<Command*> pending_;
  std::set<uint32_t> closed_;  // descriptors whose close is on its way
  size_t submitted_ = 0;
  bool batching_ = false;
};

}  // namespace nvsock::test
