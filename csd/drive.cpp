#include "csd/drive.hpp"

#include "csd/sockets/socket_services.hpp"
#include "csd/v2/session_table.hpp"
#include "libnvsock/base/asio_clock.hpp"
#include "libnvsock/base/random_id.hpp"

namespace nvsock::csd {

struct Drive::SecondGeneration {
  SecondGeneration(asio::io_context& loop, std::shared_ptr<const NetworkNamespace> where,
                   CompletionQueue& completions, const DriveOptions& options)
      : clock(loop),
        services(loop, std::move(where)),
        table(clock, services, completions,
              {.epoch = random_id(),
               .max_streams = options.streams,
               .lease = options.lease,
               .vendor = "nvsock emulated drive"}) {}

  AsioClock clock;
  SocketServices services;
  SessionTable table;  // last: its streams hold services
};

Drive::Drive(asio::io_context& loop, const DriveOptions& options, NetworkNamespace where,
             CompletionQueue& completions)
    : loop_(loop),
      options_(options),
      where_(std::make_shared<const NetworkNamespace>(std::move(where))),
      completions_(completions),
      first_(loop, options, where_, completions) {
  if (options.firmware == Firmware::second) start_second_generation();
}

Drive::~Drive() = default;

void Drive::start_second_generation() {
  second_ = std::make_unique<SecondGeneration>(loop_, where_, completions_, options_);
}

void Drive::submit(Command& command) {
  if (second_ && second_->table.handles(command)) {
    for_second_.push(command);
  } else {
    first_.submit(command);
  }
}

void Drive::ring() {
  while (!for_second_.empty()) second_->table.execute(for_second_.pop());
  first_.ring();
}

Delivery Drive::delivery() const {
  return second_ ? second_->table.delivery() : Delivery{};
}

void Drive::reset(bool restart) {
  for_second_ = {};
  if (!restart) return second_->table.controller_reset();
  second_.reset();
  start_second_generation();
}

}  // namespace nvsock::csd
