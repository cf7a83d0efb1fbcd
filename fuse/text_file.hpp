// Open files whose text is made once, when they are opened. Threads: event loop only. Nothing blocks.
#pragma once

#include <string>

#include "fuse/open_file.hpp"

namespace csdfs {

// Answers OPEN with a file that reads as `text`.
void open_text(OpenFiles& files, fuse_req_t request, std::string text);

// Answers one READ out of `text`.
void reply_text(fuse_req_t request, const std::string& text, size_t size, off_t offset,
                const fuse_file_info& info);

}  // namespace csdfs
