// What the library has to tell people. Where it goes is the program's choice: the library calls `Log`, from
// the event loop's thread, with a sentence without a newline; an empty one is silence.
#pragma once

#include <functional>
#include <string>

namespace nvsock {

enum class LogLevel { debug, info, warning, error };
using Log = std::function<void(LogLevel, const std::string&)>;

}  // namespace nvsock
