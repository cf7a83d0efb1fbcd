#include "csd/v1/relay_firmware.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "libnvsock/base/number.hpp"
#include "libnvsock/relay/v1.hpp"

namespace nvsock::csd {
namespace {

// Identify Controller data structure, NVMe Base Specification 2.0 figure 275: text fields are padded with
// spaces. What a CSD in the field says of itself.
struct TextField {
  size_t offset;
  size_t size;
  std::string_view text;
};
constexpr TextField identity[] = {{4, 20, "emulated"}, {24, 40, "Linux pci_epf"}, {64, 8, "1"}};
constexpr size_t mdts_offset = 77;
constexpr uint8_t mdts = 5;  // 2^5 pages of 4 KiB: 128 KiB
constexpr size_t avscc_offset = 264;
constexpr uint8_t vendor_lengths = 1;  // vendor commands tell them: those of the second generation do

bool parse_address(const uint8_t* buffer, sockaddr_in& address) {
  const auto* fields = reinterpret_cast<const char*>(buffer);
  const std::string node(relay_v1::field_text(fields, relay_v1::node_size));
  const auto service = relay_v1::field_text(fields + relay_v1::node_size, relay_v1::service_size);
  uint16_t port = 0;
  const bool is_port = parse_number(service, port) && port != 0;
  address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  return is_port && inet_pton(AF_INET, node.c_str(), &address.sin_addr) == 1;
}

}  // namespace

RelayFirmware::RelayFirmware(asio::io_context& loop, const DriveOptions& options,
                             std::shared_ptr<const NetworkNamespace> where, CompletionQueue& completions)
    : loop_(loop),
      firmware_(options.firmware),
      where_(std::move(where)),
      completions_(completions),
      relays_(options.relays) {}

RelayFirmware::~RelayFirmware() {
  for (const auto& relay : relays_) {
    if (relay) relay->close(false);
  }
}

void RelayFirmware::ring() {
  while (!submitted_.empty() && stalled_by_ == nullptr) dispatch(submitted_.pop());
  for (const auto& relay : touched_) {
    relay->touched = false;
    relay->serve_reads();
    relay->await_readable();
  }
  touched_.clear();
}

void RelayFirmware::complete(Command& command, uint16_t status) {
  command.completion = {.error = 0, .status = status, .dw0 = 0};
  completions_.post(command);
}

// The firmware tells standard commands from vendor commands by the opcode alone, and vendor commands from
// each other by CDW10 alone.
void RelayFirmware::dispatch(Command& command) {
  if (command.data_length < relay_v1::buffer_size) return complete(command, status::invalid_field);
  if (command.opcode == opcode::identify) return identify_controller(command);
  if (command.opcode < opcode::relay_v1) return complete(command, status::invalid_opcode);
  switch (command.cdw10) {
    case relay_v1::function::identify:
      return identify_csd(command);
    case relay_v1::function::comm:
      return command.cdw11 == relay_v1::comm_write ? write(command) : read(command);
    case relay_v1::function::open:
      return open(command);
    case relay_v1::function::close:
      return close(command);
    default:
      return complete(command, status::invalid_field);
  }
}

void RelayFirmware::identify_controller(Command& command) {
  constexpr uint32_t cns_controller = 1;
  if ((command.cdw10 & 0xff) != cns_controller) return complete(command, status::invalid_field);
  auto* bytes = static_cast<uint8_t*>(command.data);
  std::memset(bytes, 0, relay_v1::buffer_size);
  for (const TextField& field : identity) {
    std::memset(bytes + field.offset, ' ', field.size);
    std::copy(field.text.begin(), field.text.end(), bytes + field.offset);
  }
  bytes[mdts_offset] = mdts;
  if (firmware_ == Firmware::second) bytes[avscc_offset] = vendor_lengths;
  complete(command, status::success);
}

void RelayFirmware::identify_csd(Command& command) {
  auto* bytes = static_cast<uint8_t*>(command.data);
  std::memset(bytes, 0, relay_v1::buffer_size);
  if (command.cdw11 == 0) std::copy(relay_v1::identify_text.begin(), relay_v1::identify_text.end(), bytes);
  complete(command, status::success);
}

void RelayFirmware::refuse_open(Command& command, int cause) {
  complete(command, shipped() ? status::internal_error : status::vendor_errno(cause));
}

void RelayFirmware::open(Command& command) {
  sockaddr_in address{};
  if (!parse_address(static_cast<const uint8_t*>(command.data), address)) return refuse_open(command, EINVAL);
  const auto free = std::find(relays_.begin(), relays_.end(), nullptr);
  if (free == relays_.end()) return refuse_open(command, ENFILE);
  const int fd = where_->make_socket(AF_INET, SOCK_STREAM);
  // Out of descriptors is a full drive; EMFILE would read as the client's own limit.
  if (fd < 0) return refuse_open(command, errno == EMFILE ? ENFILE : errno);
  *free = std::make_shared<Relay>(*this, static_cast<uint32_t>(free - relays_.begin()), fd);
  const std::shared_ptr<Relay> relay = *free;
  if (shipped()) stalled_by_ = relay.get();
  relay->connect(address, command);
}

void RelayFirmware::opened(Relay& relay, Command& open, int error) {
  if (error == 0) {
    complete(open, status::success);
  } else {
    relay.close(false);
    *std::find_if(relays_.begin(), relays_.end(), [&](const auto& held) { return held.get() == &relay; }) =
        nullptr;
    refuse_open(open, error);
  }
  writes_moved(relay);
}

// Descriptors of ours are table indices; like those of the firmware they are reused at once.
std::shared_ptr<Relay> RelayFirmware::find(uint32_t descriptor) const {
  return descriptor < relays_.size() ? relays_[descriptor] : nullptr;
}

void RelayFirmware::close(Command& command) {
  if (const std::shared_ptr<Relay> relay = find(command.cdw13)) {
    relays_[command.cdw13] = nullptr;
    relay->close(true);
  }
  complete(command, status::success);  // closing twice succeeds
}

void RelayFirmware::read(Command& command) {
  const std::shared_ptr<Relay> relay = find(command.cdw13);
  if (!relay) return complete(command, status::internal_error);
  relay->queue_read(command);
  if (!std::exchange(relay->touched, true)) touched_.push_back(relay);
}

void RelayFirmware::write(Command& command) {
  if (command.cdw12 < 1 || command.cdw12 > relay_v1::max_write)
    return complete(command, status::invalid_field);
  const std::shared_ptr<Relay> relay = find(command.cdw13);
  if (!relay) return complete(command, status::internal_error);
  relay->queue_write(command);
  if (next_writes_to(command.cdw13)) return;  // they leave together
  relay->send_writes();
  if (shipped() && relay->writes_pending()) stalled_by_ = relay.get();
}

bool RelayFirmware::next_writes_to(uint32_t descriptor) const {
  const Command* next = submitted_.front();
  return next != nullptr && next->opcode >= opcode::relay_v1 && next->cdw10 == relay_v1::function::comm &&
         next->cdw11 == relay_v1::comm_write && next->cdw13 == descriptor && next->cdw12 >= 1 &&
         next->cdw12 <= relay_v1::max_write && next->data_length >= relay_v1::buffer_size;
}

void RelayFirmware::writes_moved(Relay& relay) {
  if (stalled_by_ != &relay || relay.writes_pending()) return;
  stalled_by_ = nullptr;
  ring();
}

}  // namespace nvsock::csd
