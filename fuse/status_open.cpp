#include "fuse/status_open.hpp"

#include <utility>

#include "fuse/filesystem.hpp"
#include "fuse/status_text.hpp"
#include "fuse/text_file.hpp"

namespace csdfs {
namespace {

using namespace std::chrono_literals;

constexpr auto patience = 1s;

}  // namespace

void StatusOpen::start(Filesystem& filesystem, fuse_req_t request) {
  if (fuse_req_interrupted(request)) return void(fuse_reply_err(request, EINTR));
  using Why = DriveReport::Why;
  const auto open = std::make_shared<StatusOpen>(filesystem, request);
  filesystem.add(open);
  const bool asked = filesystem.device().ask_counters([weak = std::weak_ptr(open)](const auto& counters) {
    if (const auto self = weak.lock()) self->answer({counters, Why::session_lost});
  });
  if (!asked) {
    open->answer({{}, filesystem.device().dialect() == "v1" ? Why::has_none : Why::not_now});
  } else if (open->request_ != nullptr) {
    fuse_req_interrupt_func(request, interrupted, open.get());
    open->timer_->arm(patience, [self = open.get()] { self->answer({{}, Why::too_slow}); });
  }
}

StatusOpen::StatusOpen(Filesystem& filesystem, fuse_req_t request)
    : filesystem_(filesystem), request_(request), timer_(nvsock::AsioClock(filesystem.loop()).make_timer()) {}

void StatusOpen::interrupted(fuse_req_t, void* self) {
  static_cast<StatusOpen*>(self)->fail(EINTR);
}

void StatusOpen::answer(const DriveReport& told) {
  const auto self = shared_from_this();
  filesystem_.remove(self);
  open_text(filesystem_.files(), std::exchange(request_, nullptr), text_of(report_status(filesystem_, told)));
}

void StatusOpen::fail(int error) {
  const auto self = shared_from_this();
  filesystem_.remove(self);
  fuse_reply_err(std::exchange(request_, nullptr), error);
}

}  // namespace csdfs
