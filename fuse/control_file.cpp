#include "fuse/control_file.hpp"

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fuse/connection.hpp"
#include "fuse/mounted_drive.hpp"
#include "fuse/text_file.hpp"
#include "fuse/words.hpp"
#include "libnvsock/base/number.hpp"
#include "libnvsock/base/quoted.hpp"
#include "libnvsock/socket/program_errno.hpp"

namespace csdfs {
namespace {

using nvsock::Error;
using nvsock::Result;

// Two addresses and a word fit many times.
constexpr size_t longest_line = 512;

const std::string help =
    "publish [HOST:]PORT ADDRESS:PORT  let connections to HOST:PORT inside the drive (HOST: 127.0.0.1) reach "
    "a\n"
    "                                  TCP service at ADDRESS:PORT of this host\n"
    "unpublish [HOST:]PORT             end that, and the connections made so\n"
    "forward [no-rebind] [hold] [max=N] SPEC\n"
    "                                  let connections to a port of this host reach one inside the drive, N "
    "at\n"
    "                                  a time (256); SPEC is [BIND:]PORT:[HOST:]PORT, unix:/PATH:[HOST:]PORT "
    "or\n"
    "                                  vsock:PORT:[HOST:]PORT. no-rebind: none that is there already; hold:\n"
    "                                  until this descriptor is closed\n"
    "unforward NAME                    end that, and the connections made so; NAME as in `forwards`\n"
    "close N                           end connection N of `connections`, as a reset\n";

// A write whose answer is the drive's.
struct Publishing {
  Publisher& publisher;
  const fuse_req_t request;
  const size_t taken;
  const nvsock::Endpoint inside;
  bool answered = false;

  void answer(int error) {
    answered = true;
    if (error != 0) {
      fuse_reply_err(request, nvsock::named_errno(static_cast<uint32_t>(error)));
    } else {
      fuse_reply_write(request, taken);
    }
  }
  static void interrupted(fuse_req_t, void* data) {
    const auto* self = static_cast<Publishing*>(data);
    self->publisher.unpublish(self->inside, EINTR);
  }
};

class ControlFile final : public OpenFile {
 public:
  ControlFile(MountedDrive& drive, Caller opener) : drive_(drive), opener_(std::move(opener)) {}

  void read(fuse_req_t request, size_t size, off_t offset, const fuse_file_info& info) override {
    if (!answer_) return reply_text(request, help, size, offset, info);
    // Not by the offset, which the command's write has moved.
    const std::string part = answer_->substr(0, size);
    answer_->erase(0, part.size());
    fuse_reply_buf(request, part.data(), part.size());
  }

  void release() override {
    for (const std::string& name : held_) drive_.forwarder().remove(name);
  }

  void write(fuse_req_t request, nvsock::Slice data, const fuse_file_info&) override {
    const std::string_view text(reinterpret_cast<const char*>(data.data), data.size);
    const std::string_view line = text.substr(0, text.find('\n'));
    const size_t taken = std::min(line.size() + 1, text.size());
    answer_ = "";
    if (line.size() > longest_line) {
      return refuse(request, {EINVAL, "a command is longer than " + std::to_string(longest_line) + " bytes"});
    }
    const Words words = words_of(line);
    Result<void> done;
    if (words.size() == 3 && words[0] == "publish") {
      return publish(request, taken, words);
    } else if (words.size() == 2 && words[0] == "unpublish") {
      done = unpublish(words[1]);
    } else if (words.size() >= 2 && words[0] == "forward") {
      done = forward(words);
    } else if (words.size() == 2 && words[0] == "unforward") {
      done = unforward(words[1]);
    } else if (words.size() == 2 && words[0] == "close") {
      done = close_connection(words[1]);
    } else if (!words.empty()) {
      done = Error{EINVAL, nvsock::quoted(line) + " is no command; reading ctl tells which there are"};
    }
    if (!done) return refuse(request, done.error());
    fuse_reply_write(request, taken);
  }

 private:
  // What other users do wrong is not for everybody's log.
  void refuse(fuse_req_t request, const Error& error) {
    const auto level = owns_all() ? spdlog::level::warn : spdlog::level::debug;
    drive_.mount().log.log(level, "ctl: {}", error.text);
    answer_ = error.text + "\n";
    fuse_reply_err(request, error.code);
  }

  void publish(fuse_req_t request, size_t taken, const Words& words) {
    Result<Publication> what = parse_publication(words[1], words[2]);
    if (!what) return refuse(request, what.error());
    const Result<void> may = drive_.mount().access.check(opener_, AccessKind::listen, what->inside);
    if (!may) return refuse(request, may.error());
    what->owner = opener_.user;
    if (fuse_req_interrupted(request)) return void(fuse_reply_err(request, EINTR));
    const auto waits = std::make_shared<Publishing>(Publishing{
        .publisher = drive_.publisher(), .request = request, .taken = taken, .inside = what->inside});
    const Result<void> asked =
        drive_.publisher().publish(*what, [waits](int error) { waits->answer(error); });
    if (!asked) return refuse(request, asked.error());
    if (!waits->answered) fuse_req_interrupt_func(request, Publishing::interrupted, waits.get());
  }

  Result<void> unpublish(std::string_view text) {
    const Result<nvsock::Endpoint> inside = parse_inside(text);
    if (!inside) return inside.error();
    const Publication* const published = drive_.publisher().find(*inside);
    if (!owns_all() && (published == nullptr || published->owner != opener_.user)) {
      return not_theirs(inside->text() + " inside the drive");
    }
    if (drive_.publisher().unpublish(*inside, EINTR)) return {};
    return Error{ENOENT, inside->text() + " inside the drive is not published"};
  }

  Result<void> forward(const Words& words) {
    if (!owns_all()) return not_for_others("forwards");
    Forwarder::Options options;
    bool hold = false;
    for (size_t i = 1; i + 1 < words.size(); ++i) {
      const std::string_view word = words[i];
      if (word == "no-rebind") {
        options.rebind = false;
      } else if (word == "hold") {
        hold = true;
      } else if (!word.starts_with("max=") ||
                 !nvsock::parse_number(word.substr(4), options.most_connections) ||
                 options.most_connections == 0) {
        return Error{EINVAL, nvsock::quoted(word) + " is none of no-rebind, hold and max=N"};
      }
    }
    auto specs = nvsock::parse_forward(words.back());
    if (!specs) return specs.error();
    auto added = drive_.forwarder().add(std::move(*specs), options);
    if (!added) return added.error();
    if (hold) std::ranges::move(added->names, std::back_inserter(held_));
    answer_ = std::move(added->listening);
    return {};
  }

  Result<void> unforward(std::string_view name) {
    if (!owns_all()) return not_for_others("forwards");
    if (drive_.forwarder().remove(name)) return {};
    return Error{ENOENT, nvsock::quoted(name) + " leads nowhere; MOUNT/forwards has what does"};
  }

  Result<void> close_connection(std::string_view text) {
    uint64_t id = 0;
    if (!nvsock::parse_number(text, id)) {
      return Error{EINVAL, nvsock::quoted(text) + " is not the number of a connection"};
    }
    if (!owns_all() && !owns_connection(id)) return not_theirs("connection " + std::to_string(id));
    nvsock::Stream* const stream = drive_.device().find_stream(id);
    if (stream == nullptr) return Error{ENOENT, "there is no connection " + std::to_string(id)};
    stream->abort(nvsock::file_errno(nvsock::Cause::closed_by_user));
    return {};
  }

  bool owns_all() const { return drive_.mount().access.owns_all(opener_.user); }

  bool owns_connection(uint64_t id) const {
    if (const Publication* const published = drive_.publisher().find(id))
      return published->owner == opener_.user;
    return std::ranges::any_of(drive_.connections(), [&](const Connection* connection) {
      return connection->stream_id() == id && connection->opener_user() == opener_.user;
    });
  }

  // Said of what does not exist, too: others' things are not to be found out this way.
  Error not_theirs(const std::string& what) const {
    return {EACCES, what + " is not user " + std::to_string(opener_.user) + "'s"};
  }

  // A port or socket of the host is made with the rights of csdfs, and leads whoever finds it past the rules.
  Error not_for_others(const std::string& what) const {
    return {EACCES,
            what + " are the mounting user's and root's, not user " + std::to_string(opener_.user) + "'s"};
  }

  MountedDrive& drive_;
  std::vector<std::string> held_;  // forwards that end with this descriptor
  const Caller opener_;
  // What is unread of the answer to the last command through this descriptor; none: nothing was asked.
  std::optional<std::string> answer_;
};

}  // namespace

void open_control(MountedDrive& drive, fuse_req_t request, const fuse_file_info&) {
  Caller opener = caller_of(request);
  if (const Access& access = drive.mount().access; !access.owns_all(opener.user)) {
    if (!access.has_rules()) return void(fuse_reply_err(request, EACCES));
    // The request will be gone when a rule wants to know.
    opener.groups = [groups = opener.groups()] { return groups; };
  }
  drive.mount().files.answer_open(request, std::make_unique<ControlFile>(drive, std::move(opener)), 0);
}

}  // namespace csdfs
