#include "fuse/status_open.hpp"

#include <spdlog/fmt/fmt.h>

#include <utility>

#include "fuse/filesystem.hpp"
#include "fuse/text_file.hpp"

namespace csdfs {
namespace {

using namespace std::chrono_literals;

constexpr auto patience = 1s;

std::string counters_text(const nvsock::DriveCounters& counters) {
  if (!counters) return "drive: the session was lost\n";
  return fmt::format(
      "drive:\n"
      "  streams now: {}\n"
      "  streams opened: {}\n"
      "  streams refused: {}\n"
      "  bytes to services: {}\n"
      "  bytes from services: {}\n"
      "  datagrams dropped: {}\n"
      "  batches repeated: {}\n"
      "  session seconds: {}\n",
      counters->streams_now, counters->streams_opened, counters->opens_refused, counters->bytes_to_services,
      counters->bytes_from_services, counters->datagrams_dropped, counters->batches_repeated,
      counters->age_ms / 1000);
}

}  // namespace

void StatusOpen::start(Filesystem& filesystem, fuse_req_t request, const fuse_file_info& info) {
  if (fuse_req_interrupted(request)) return void(fuse_reply_err(request, EINTR));
  const auto open = std::make_shared<StatusOpen>(filesystem, request, info);
  filesystem.add(open);
  const bool asked = filesystem.device().ask_counters([weak = std::weak_ptr(open)](const auto& counters) {
    if (const auto self = weak.lock()) self->answer(counters_text(counters));
  });
  if (!asked) {
    open->answer(filesystem.device().dialect() == "v1" ? "drive: has no counters\n"
                                                       : "drive: does not answer now\n");
  } else if (open->request_ != nullptr) {
    fuse_req_interrupt_func(request, interrupted, open.get());
    open->timer_->arm(patience, [self = open.get()] { self->answer("drive: did not answer within 1 s\n"); });
  }
}

StatusOpen::StatusOpen(Filesystem& filesystem, fuse_req_t request, const fuse_file_info& info)
    : filesystem_(filesystem),
      request_(request),
      info_(info),
      timer_(nvsock::AsioClock(filesystem.loop()).make_timer()) {}

void StatusOpen::interrupted(fuse_req_t, void* self) {
  static_cast<StatusOpen*>(self)->fail(EINTR);
}

void StatusOpen::answer(const std::string& drive) {
  const auto self = shared_from_this();
  filesystem_.remove(self);
  open_text(std::exchange(request_, nullptr), info_, status_text(filesystem_, filesystem_.device()) + drive);
}

void StatusOpen::fail(int error) {
  const auto self = shared_from_this();
  filesystem_.remove(self);
  fuse_reply_err(std::exchange(request_, nullptr), error);
}

}  // namespace csdfs
