#include "fuse/status_open.hpp"

#include <utility>

#include "fuse/mounted_drive.hpp"
#include "fuse/text_file.hpp"

namespace csdfs {
namespace {

using namespace std::chrono_literals;

constexpr auto patience = 1s;

}  // namespace

void open_status(MountedDrive& drive, fuse_req_t request, StatusWriter write) {
  if (fuse_req_interrupted(request)) return void(fuse_reply_err(request, EINTR));
  const auto open = std::make_shared<StatusOpen>(drive, request, std::move(write));
  drive.hold(open);
  open->start();
}

StatusOpen::StatusOpen(MountedDrive& drive, fuse_req_t request, StatusWriter write)
    : drive_(drive),
      request_(request),
      write_(std::move(write)),
      timer_(nvsock::AsioClock(drive.mount().loop).make_timer()) {}

void StatusOpen::start() {
  using Why = DriveReport::Why;
  const bool asked = drive_.device().ask_counters([weak = weak_from_this()](const auto& counters) {
    const auto self = weak.lock();
    if (self) self->answer({counters, Why::session_lost});
  });
  if (!asked) {
    answer({{}, drive_.device().dialect() == "v1" ? Why::has_none : Why::not_now});
  } else if (request_ != nullptr) {
    fuse_req_interrupt_func(request_, interrupted, this);
    timer_->arm(patience, [this] { answer({{}, Why::too_slow}); });
  }
}

void StatusOpen::interrupted(fuse_req_t, void* self) {
  static_cast<StatusOpen*>(self)->fail(EINTR);
}

void StatusOpen::answer(const DriveReport& told) {
  const auto self = drive_.take(*this);
  open_text(drive_.mount().files, std::exchange(request_, nullptr), write_(report_status(drive_, told)));
}

void StatusOpen::fail(int error) {
  const auto self = drive_.take(*this);
  fuse_reply_err(std::exchange(request_, nullptr), error);
}

}  // namespace csdfs
