#include "libnvsock/port/emulated_address.hpp"

#include <cerrno>

#include "libnvsock/relay/v1.hpp"

namespace nvsock {
namespace {

using csd::Firmware;

Error invalid(const UriOption& option, const std::string& why) {
  return {EINVAL, std::string(option.key) + "=" + printable(option.value) + why};
}

Result<uint64_t> parse_size(const UriOption& option) {
  constexpr std::string_view units = "KMG";
  const std::string_view value = option.value;
  const size_t unit = value.empty() ? std::string_view::npos : units.find(value.back());
  const bool scaled = unit != std::string_view::npos;
  const size_t shift = scaled ? 10 * (unit + 1) : 0;
  uint64_t number = 0;
  if (!parse_number(scaled ? value.substr(0, value.size() - 1) : value, number) || number == 0 ||
      number > UINT64_MAX >> shift) {
    return invalid(option, " is not a number of bytes (such as 4096, 64K, 64M, 1G)");
  }
  return number << shift;
}

// Null: the key is another one's.
uint64_t* trigger(FaultOptions& faults, std::string_view key) {
  return key == "reset_every"     ? &faults.reset_every
         : key == "restart_every" ? &faults.restart_every
         : key == "gone_every"    ? &faults.gone_every
                                  : nullptr;
}

// A namespace's name becomes a file name under /run/netns.
bool is_netns_name(std::string_view name) {
  return !name.empty() && name.size() < 256 && name != "." && name != ".." &&
         name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

Result<Firmware> parse_dialect(const UriOption& option) {
  if (option.value == "v1") return Firmware::shipped;
  if (option.value == "v1-fixed") return Firmware::fixed;
  if (option.value == "v2") return Firmware::second;
  return invalid(option, " is unknown (v1, v1-fixed, v2)");
}

}  // namespace

bool is_emulated(std::string_view uri) {
  return UriReader(uri).base() == "emu:";
}

Result<EmulatedAddress> parse_emulated_address(std::string_view uri) {
  UriReader reader(uri);
  EmulatedAddress address;
  std::optional<UriOption> relays;     // their range depends on the generation
  std::optional<UriOption> of_second;  // an option that the first generation does not have
  while (const auto option = reader.next()) {
    if (option->key == "relays") {
      relays = option;
    } else if (option->key == "dialect") {
      const Result<Firmware> firmware = parse_dialect(*option);
      if (!firmware) return firmware.error();
      address.drive.firmware = *firmware;
    } else if (option->key == "netns") {
      if (!is_netns_name(option->value)) return invalid(*option, " cannot be a namespace's name");
      address.drive.netns = option->value;
    } else if (option->key == "lease") {
      const Result<unsigned> lease = parse_in_range(*option, csd::max_lease);
      if (!lease) return lease.error();
      address.drive.lease = std::chrono::seconds(*lease);
      of_second = option;
    } else if (option->key == "faults") {
      if (!parse_number(option->value, address.faults.seed.emplace())) {
        return invalid(*option, " is not a seed (0-18446744073709551615)");
      }
      of_second = option;
    } else if (uint64_t* const every = trigger(address.faults, option->key)) {
      const Result<uint64_t> size = parse_size(*option);
      if (!size) return size.error();
      *every = *size;
      of_second = option;
    } else {
      return unknown_option(*option, emulated_options);
    }
  }
  const bool second = address.drive.firmware == Firmware::second;
  if (of_second && !second) {
    return Error{EINVAL, printable(of_second->text) +
                             " needs dialect=v2: the first generation loses all at a controller reset"};
  }
  if (address.drive.firmware == Firmware::shipped) address.drive.relays = relay_v1::shipped_relays;
  if (relays) {
    const Result<unsigned> number = parse_in_range(*relays, second ? csd::max_streams : csd::max_relays);
    if (!number) return number.error();
    (second ? address.drive.streams : address.drive.relays) = *number;
  }
  return address;
}

}  // namespace nvsock
