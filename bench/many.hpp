// Many streams at a time: what they cost in commands, memory and time.
//
// Through the library in a process of its own, and through a mount, where each stream is an open file. Every
// stream has a message on its way at the same time.
#pragma once

#include <string>
#include <vector>

#include "bench/process.hpp"

namespace bench {

// One way to the drive.
struct ManyOrder {
  std::string device;   // of the library; not used with a mount
  int distance_us = 0;  // that each command takes to the drive; the library's way only
  std::string mount;    // directory; empty: the library
  pid_t csdfs = 0;      // of the mount
  uint16_t port = 0;    // of the echo server
  size_t streams = 0;
};

struct ManyFigures {
  double streams = 0;
  double open_us = 0;                // each, with all of them waiting at once
  double messages_per_second = 0;    // of 64 bytes, echoed
  double most_in_flight = 0;         // commands
  double commands_per_thousand = 0;  // messages echoed: there and back
  double commands_per_megabyte = 0;  // moved by 64 streams in pieces of 64 KiB, both directions added
  double bytes_per_stream = 0;       // memory of the process that has the drive, by an open, idle stream
  double close_us = 0;
};

// In the order in which they are told.
struct Named {
  const char* name;  // for people
  const char* key;   // for machines
  double ManyFigures::*figure;
};
inline constexpr Named named_figures[] = {
    {"streams", "streams", &ManyFigures::streams},
    {"open, each, us", "open_us", &ManyFigures::open_us},
    {"messages echoed a second", "messages_per_second", &ManyFigures::messages_per_second},
    {"most commands in flight", "most_commands_in_flight", &ManyFigures::most_in_flight},
    {"commands per 1000 messages", "commands_per_1000_messages", &ManyFigures::commands_per_thousand},
    {"commands per MB in bulk", "commands_per_megabyte", &ManyFigures::commands_per_megabyte},
    {"memory of an idle one, bytes", "bytes_per_stream", &ManyFigures::bytes_per_stream},
    {"close, each, us", "close_us", &ManyFigures::close_us},
};

// Does it all in this process. Blocks without a bound of its own: whoever runs the process ends it.
Result<ManyFigures> run_many(const ManyOrder& order);

// The second generation through the library, at once and with the distance of a controller, and through a
// mount; and the first for comparison, which has at most 512 connections. Each in a process of its own.
struct ManyRow {
  std::string way;
  ManyFigures figures;
};
Result<std::vector<ManyRow>> measure_many(const std::string& csdfs, size_t streams);

}  // namespace bench
