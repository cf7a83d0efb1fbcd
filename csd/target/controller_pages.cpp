#include "csd/target/controller_pages.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <string>

#include "csd/target/nvme_connection.hpp"
#include "libnvsock/base/bytes.hpp"
#include "libnvsock/base/crc32c.hpp"
#include "libnvsock/nvme/queue_entry.hpp"
#include "libnvsock/relay/v2.hpp"

namespace nvsock::csd {
namespace {

void put(std::span<uint8_t> page, size_t offset, std::string_view text) {
  std::ranges::copy(text, page.begin() + static_cast<std::ptrdiff_t>(offset));
}
// Text fields are padded with spaces.
void put_padded(std::span<uint8_t> page, size_t offset, size_t size, std::string_view text) {
  std::ranges::fill(page.subspan(offset, size), ' ');
  put(page, offset, text.substr(0, size));
}
template <typename Number>
void put(std::span<uint8_t> page, size_t offset, Number value) {
  store_le(&page[offset], value);
}

std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

Uuid uuid_of(std::string_view text) {
  Uuid id;
  for (size_t i = 0; i < id.size(); i += 4) {
    const std::string salted = std::to_string(i) + std::string(text);
    store_le(&id[i], crc32c(bytes_of(salted)));
  }
  id[6] = static_cast<uint8_t>((id[6] & 0x0f) | 0x80);  // version
  id[8] = static_cast<uint8_t>((id[8] & 0x3f) | 0x80);  // variant
  return id;
}

void write_identify_controller(const ControllerIdentity& identity, std::span<uint8_t> page) {
  char serial[17];
  const Uuid id = uuid_of(identity.nqn);
  snprintf(serial, sizeof serial, "%016llx", static_cast<unsigned long long>(load_le<uint64_t>(id.data())));
  put_padded(page, 4, 20, serial);
  put_padded(page, 24, 40, relay_v2::model);
  put_padded(page, 64, 8, "1");
  put<uint8_t>(page, 76, 2);                            // CMIC: several controllers
  put<uint8_t>(page, 77, 5);                            // MDTS: 2^5 pages of 4 KiB
  put(page, 78, identity.controller);                   // CNTLID
  put<uint32_t>(page, 80, nvme::version);               // VER
  put<uint8_t>(page, 111, identity.discovery ? 2 : 1);  // CNTRLTYPE
  put<uint8_t>(page, 258, 3);                           // ACL, 0's based
  put<uint8_t>(page, 259, 3);                           // AERL, 0's based
  put<uint8_t>(page, 260, 3);                           // FRMW: one slot, read only
  put<uint8_t>(page, 261, identity.discovery ? 4 : 6);  // LPA: offsets into log pages, Commands Supported
  put<uint16_t>(page, 320, 10);                         // KAS: 1 s
  put<uint16_t>(page, 514, identity.max_entries);       // MAXCMD
  put<uint32_t>(page, 536, 1 | 1 << 20 | 1 << 21);      // SGLS: taken, in capsule by offset, transport
  put(page, 768, identity.discovery ? nvme::discovery_nqn : identity.nqn);
  if (identity.discovery) return;
  put<uint8_t>(page, 264, 1);                            // AVSCC: vendor commands tell their lengths
  put<uint8_t>(page, 512, 0x66);                         // SQES: 64 bytes
  put<uint8_t>(page, 513, 0x44);                         // CQES: 16 bytes
  put<uint32_t>(page, 516, 1);                           // NN
  if (identity.write_cache) put<uint8_t>(page, 525, 7);  // VWC, flushed for all namespaces too
  // Units of 16 bytes: IOCCSZ, IORCSZ; ICDOFF is 0.
  put<uint32_t>(page, 1792, (nvme::submission_size + nvme_tcp::admin_capsule_data) / 16);
  put<uint32_t>(page, 1796, nvme::completion_size / 16);
  put<uint8_t>(page, 1803, 1);  // MSDBD: one descriptor
}

void write_identify_namespace(uint64_t blocks, uint32_t block_size, const Uuid& id, std::span<uint8_t> page) {
  put(page, 0, blocks);                                                // NSZE
  put(page, 8, blocks);                                                // NCAP
  put(page, 16, blocks);                                               // NUSE
  put<uint8_t>(page, 30, 1);                                           // NMIC: shared by controllers
  std::ranges::copy(id, page.begin() + 104);                           // NGUID
  put(page, 130, static_cast<uint8_t>(std::countr_zero(block_size)));  // LBAF0: LBADS
}

// Figure 283: one descriptor, then zeros.
void write_namespace_descriptors(const Uuid& id, std::span<uint8_t> page) {
  put<uint8_t>(page, 0, 3);  // a UUID
  put<uint8_t>(page, 1, 16);
  std::ranges::copy(id, page.begin() + 4);
}

// Figure 207. All is well, at 25 degrees.
void write_health_log(std::span<uint8_t> page) {
  put<uint16_t>(page, 1, 298);
  put<uint8_t>(page, 3, 100);  // spare
}

void write_effects_log(std::span<uint8_t> page) {
  constexpr uint32_t supported = 1, changes_data = 2;
  constexpr size_t io_commands = 1024;
  for (const uint8_t opcode :
       {nvme::opcode::get_log_page, nvsock::opcode::identify, nvme::opcode::abort, nvme::opcode::set_features,
        nvme::opcode::get_features, nvme::opcode::async_event_request, nvme::opcode::keep_alive,
        relay_v2::opcode::no_data, relay_v2::opcode::to_drive, relay_v2::opcode::to_host})
    put(page, size_t{4} * opcode, supported);
  put(page, io_commands + size_t{4} * nvme::opcode::flush, supported);
  put(page, io_commands + size_t{4} * nvme::opcode::read, supported);
  put(page, io_commands + size_t{4} * nvme::opcode::write, supported | changes_data);
}

void write_discovery_log(std::string_view nqn, const sockaddr_storage& address, bool listed, bool tls,
                         std::span<uint8_t> page) {
  put<uint64_t>(page, 0, 1);  // GENCTR: nothing ever changes
  const bool ipv6 = address.ss_family == AF_INET6;
  if (!listed || (address.ss_family != AF_INET && !ipv6)) return;
  put<uint64_t>(page, 8, 1);  // NUMREC
  const auto entry = page.subspan(1024);
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(address.ss_family,
            ipv6 ? static_cast<const void*>(&v6.sin6_addr) : static_cast<const void*>(&v4.sin_addr), text,
            sizeof text);
  put<uint8_t>(entry, 0, 3);             // TRTYPE: TCP
  put<uint8_t>(entry, 1, ipv6 ? 2 : 1);  // ADRFAM
  put<uint8_t>(entry, 2, 2);             // SUBTYPE: not discovery
  put<uint8_t>(entry, 3, tls ? 1 : 2);   // TREQ: secure channel required, or not
  put<uint16_t>(entry, 6, nvme::any_controller);
  put<uint16_t>(entry, 8, 32);  // ASQSZ
  put_padded(entry, 32, 32, std::to_string(ntohs(ipv6 ? v6.sin6_port : v4.sin_port)));
  put(entry, 256, nqn);
  put_padded(entry, 512, 256, text);
  put<uint8_t>(entry, 768, tls ? 2 : 0);  // TSAS, SECTYPE: TLS 1.3, or nothing
}

}  // namespace nvsock::csd
