#include "fuse/text_file.hpp"

#include <algorithm>

namespace csdfs {
namespace {

class TextFile final : public OpenFile {
 public:
  explicit TextFile(std::string text) : text_(std::move(text)) {}
  void read(fuse_req_t request, size_t size, off_t offset, const fuse_file_info& info) override {
    reply_text(request, text_, size, offset, info);
  }

 private:
  const std::string text_;
};

}  // namespace

void open_text(OpenFiles& files, fuse_req_t request, std::string text) {
  files.answer_open(request, std::make_unique<TextFile>(std::move(text)), 0);
}

void reply_text(fuse_req_t request, const std::string& text, size_t size, off_t offset,
                const fuse_file_info& info) {
  // splice() reads through the page cache and stops at the size that stat() tells, which is not the
  // text's. Only such reads carry no lock owner; callers fall back to read().
  if (info.lock_owner == 0) return void(fuse_reply_err(request, EINVAL));
  const size_t start = std::min(static_cast<size_t>(offset), text.size());
  fuse_reply_buf(request, text.data() + start, std::min(size, text.size() - start));
}

}  // namespace csdfs
