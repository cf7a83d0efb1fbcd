// A subsystem behind NVMe/TCP as a device URI names it: where its controller listens, and what it is called.
//
//   nvme-tcp://HOST:PORT/NQN    HOST: an IPv4 address, an IPv6 address in brackets, or a name
//   unix:/PATH/NQN              PATH ends before the last "/nqn."
//   vsock:CID:PORT/NQN
//   behind each: [?hostnqn=NQN][&digests=header,data|none][&tls-key=FILE][&tls-identity=0|1]
//
// Threads: any; nothing is opened or looked up.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "libnvsock/base/result.hpp"
#include "libnvsock/base/uri.hpp"
#include "libnvsock/nvme/tcp_pdu.hpp"
#include "libnvsock/socket/endpoint.hpp"

namespace nvsock {

struct NvmeTcpAddress {
  enum class Transport { tcp, unix_socket, vsock };

  Transport transport = Transport::tcp;
  Endpoint endpoint;                         // tcp
  std::string path;                          // unix_socket; fits a socket's address
  uint32_t cid = 0;                          // vsock
  uint32_t vsock_port = 0;                   // vsock
  std::string subsystem;                     // NQN
  std::string host;                          // NQN; empty: this machine's
  std::optional<nvme_tcp::Digests> digests;  // null: as the way there needs it (nvme_tcp_port.hpp)
  std::string tls_key;                       // a file, see load_tls_key(); empty: no TLS
  unsigned tls_identity = 1;                 // version of the PSK identity
};

inline constexpr KnownOption nvme_tcp_options[] = {
    {"hostnqn=NQN", "this host's name (that of /etc/nvme/hostnqn)"},
    {"digests=header,data|none", "checksums (both on a network without TLS)"},
    {"tls-key=FILE", "TLS, with the key in FILE (none)"},
    {"tls-identity=0|1", "version of the key's identity (1)"},
};

// Is it for parse_nvme_tcp_address() to say whether the URI is right?
bool is_nvme_tcp(std::string_view uri);
// EINVAL with a sentence that names the part that is wrong.
Result<NvmeTcpAddress> parse_nvme_tcp_address(std::string_view uri);

}  // namespace nvsock
