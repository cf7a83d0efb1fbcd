// Programs that listen on a port of their own: a relay, a drive.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/server.hpp"

namespace bench {

// Starts the program with the arguments made for a free port of 127.0.0.1. It listens there when this
// returns, at the latest after five seconds (ETIMEDOUT). EPROTO: it ended, and has said why on stderr.
Result<Server> start_listening(
    const std::function<std::vector<std::string>(const std::string& port)>& arguments);

}  // namespace bench
