// One NVMe admin command and its completion, as both ends of the relay protocol see it.
//
// Field names follow the NVMe Base Specification 2.0 (figure 87, common command format; section 3.3.3.2,
// completion queue entry).
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>

namespace nvsock {

class BufferRef;

namespace opcode {
inline constexpr uint8_t identify = 0x06;
inline constexpr uint8_t relay_v1 = 0xC0;
}  // namespace opcode

// Status field without the phase tag and flags: status code type in bits 10:8, status code in bits 7:0.
namespace status {
inline constexpr uint16_t success = 0x000;
inline constexpr uint16_t invalid_opcode = 0x001;
inline constexpr uint16_t invalid_field = 0x002;
inline constexpr uint16_t internal_error = 0x006;
inline constexpr uint16_t aborted = 0x007;
inline constexpr uint16_t host_path_error = 0x370;  // the controller is not live: nothing happened
inline constexpr uint16_t type_mask = 0x700;
inline constexpr uint16_t type_vendor = 0x700;  // the status code is a POSIX errno number

constexpr uint16_t vendor_errno(int code) {
  return static_cast<uint16_t>(type_vendor | code);
}
// The errno a vendor status names, or 0 for any other status.
constexpr int errno_of(uint16_t value) {
  return (value & type_mask) == type_vendor ? (value & 0xff) : 0;
}
}  // namespace status

struct Completion {
  int error = 0;        // errno when no completion came from the drive (EINTR, ENODEV, ...), else 0
  uint16_t status = 0;  // valid when error == 0
  uint32_t dw0 = 0;     // valid when error == 0 and status == success

  bool ok() const { return error == 0 && status == status::success; }
};

// Whoever builds a command owns it and the memory at `data`, and leaves both alone from submit() until
// `done` runs. A command that never completes keeps both for good.
struct Command {
  uint8_t opcode = 0;
  uint32_t nsid = 0;
  uint32_t cdw10 = 0, cdw11 = 0, cdw12 = 0, cdw13 = 0, cdw14 = 0, cdw15 = 0;
  void* data = nullptr;  // page aligned
  // The block that begins at `data`, for who executes the command and wants to keep the bytes: it is not
  // written to again while somebody else refers to it. Null: they have to be copied.
  const BufferRef* block = nullptr;
  uint32_t data_length = 0;
  // When it expires Linux resets the controller (facts: a PCIe drive) or reconnects (NVMe/TCP). Never 0,
  // which means the driver's default of 60 s.
  std::chrono::milliseconds timeout{0};
  bool may_block = false;  // the drive may hold it until something happens (a read of a quiet relay)

  Completion completion;
  void (*done)(Command&) = nullptr;  // runs on the event loop's thread, exactly once

  Command* next = nullptr;  // for the queue of whoever holds the command
};

// First-in, first-out queue of commands through Command::next; owns nothing.
class CommandQueue {
 public:
  bool empty() const { return head_ == nullptr; }
  Command* front() const { return head_; }
  void push(Command& command) {
    command.next = nullptr;
    (head_ == nullptr ? head_ : tail_->next) = &command;
    tail_ = &command;
  }
  Command& pop() {
    Command& command = *head_;
    head_ = command.next;
    command.next = nullptr;
    return command;
  }

 private:
  Command* head_ = nullptr;
  Command* tail_ = nullptr;
};

}  // namespace nvsock
