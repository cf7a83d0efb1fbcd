// Device URIs: what they mean, and that a wrong part is named.
#include "libnvsock/device_uri.hpp"

#include <fstream>

#include "libnvsock/base/quoted.hpp"
#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using csd::Firmware;
using test::expect_sentence;

// The address is of this kind, or the test ends here.
template <typename Address>
Address address_of(const Result<DeviceUri>& uri) {
  return std::get<Address>(uri->address);
}
EmulatedAddress emulated(const std::string& text) {
  return address_of<EmulatedAddress>(parse_device_uri(text));
}
ControllerAddress controller(const std::string& text) {
  return address_of<ControllerAddress>(parse_device_uri(text));
}

TEST(DeviceUri, controller_has_the_relays_of_the_firmware_unless_told) {
  const Result<DeviceUri> uri = parse_device_uri("/dev/nvme12");
  ASSERT_TRUE(uri);
  ASSERT_TRUE(std::holds_alternative<ControllerAddress>(uri->address));
  EXPECT_EQ(address_of<ControllerAddress>(uri).name, "nvme12");
  EXPECT_EQ(uri->text, "/dev/nvme12");
  EXPECT_EQ(uri->relays(), 4u);
  EXPECT_EQ(parse_device_uri("/dev/nvme0?relays=9")->relays(), 9u);
}

TEST(DeviceUri, a_controller_is_reached_as_the_kernel_can_unless_told) {
  EXPECT_EQ(controller("/dev/nvme0").passthrough, Passthrough::automatic);
  EXPECT_EQ(controller("/dev/nvme0?passthrough=auto").passthrough, Passthrough::automatic);
  EXPECT_EQ(controller("/dev/nvme0?passthrough=io_uring").passthrough, Passthrough::io_uring);
  EXPECT_EQ(controller("/dev/nvme0?relays=9&passthrough=ioctl").passthrough, Passthrough::ioctl);
  for (const char* value : {"", "uring", "IOCTL", "ioctl "}) {
    expect_sentence(parse_device_uri("/dev/nvme0?passthrough=" + std::string(value)),
                    "passthrough=" + std::string(value) + " is unknown (auto, io_uring, ioctl)");
  }
  expect_sentence(parse_device_uri("emu:?passthrough=ioctl"), "unknown option \"passthrough=ioctl\"");
}

TEST(DeviceUri, emulated_drive_is_of_the_second_generation) {
  for (const char* text : {"emu:", "emu:?"}) {
    const Result<DeviceUri> uri = parse_device_uri(text);
    ASSERT_TRUE(uri) << text;
    ASSERT_TRUE(std::holds_alternative<EmulatedAddress>(uri->address));
    EXPECT_EQ(address_of<EmulatedAddress>(uri).drive.firmware, Firmware::second);
    EXPECT_EQ(address_of<EmulatedAddress>(uri).drive.streams, 16384u);
    EXPECT_EQ(address_of<EmulatedAddress>(uri).drive.netns, "");
  }
}

TEST(DeviceUri, emulated_drive_takes_options_in_any_order) {
  for (const char* text : {"emu:?relays=7&netns=drive&dialect=v1", "emu:?dialect=v1&netns=drive&relays=7"}) {
    const Result<DeviceUri> uri = parse_device_uri(text);
    ASSERT_TRUE(uri) << text;
    EXPECT_EQ(uri->relays(), 7u);
    EXPECT_EQ(address_of<EmulatedAddress>(uri).drive.relays, 7u);
    EXPECT_EQ(address_of<EmulatedAddress>(uri).drive.netns, "drive");
    EXPECT_EQ(address_of<EmulatedAddress>(uri).drive.firmware, Firmware::shipped);
  }
}

TEST(DeviceUri, shipped_firmware_has_4_relays) {
  const Result<DeviceUri> uri = parse_device_uri("emu:?dialect=v1");
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->relays(), 4u);
  EXPECT_EQ(address_of<EmulatedAddress>(uri).drive.relays, 4u);
}

TEST(DeviceUri, fixed_firmware_has_64_relays) {
  const Result<DeviceUri> uri = parse_device_uri("emu:?dialect=v1-fixed");
  ASSERT_TRUE(uri);
  EXPECT_EQ(address_of<EmulatedAddress>(uri).drive.firmware, Firmware::fixed);
  EXPECT_EQ(uri->relays(), 64u);
  EXPECT_EQ(address_of<EmulatedAddress>(uri).drive.relays, 64u);
}

TEST(DeviceUri, relays_are_1_to_512_and_streams_1_to_16384) {
  EXPECT_EQ(parse_device_uri("emu:?relays=1&dialect=v1")->relays(), 1u);
  EXPECT_EQ(parse_device_uri("emu:?relays=512&dialect=v1")->relays(), 512u);
  EXPECT_EQ(emulated("emu:?relays=1").drive.streams, 1u);
  EXPECT_EQ(emulated("emu:?relays=16384").drive.streams, 16384u);
  expect_sentence(parse_device_uri("emu:?relays=16385"), "relays=16385 is out of range (1-16384)");
  for (const char* value : {"0", "513", "-1", "+4", "4x", "x", "", " 4", "99999999999999999999"}) {
    for (const char* base : {"emu:?dialect=v1&", "emu:?dialect=v1-fixed&", "/dev/nvme0?"}) {
      expect_sentence(parse_device_uri(std::string(base) + "relays=" + value),
                      "relays=" + std::string(value) + " is out of range (1-512)");
    }
  }
  expect_sentence(parse_device_uri("emu:?relays"), "relays=");
}

TEST(DeviceUri, a_namespace_of_a_controller_is_not_a_controller) {
  for (const char* text :
       {"/dev/nvme0n1", "/dev/nvme", "/dev/nvme-fabrics", "/dev/nvme0 ", "/dev/nvme/0", "/dev/nvme0/.."}) {
    const Result<DeviceUri> uri = parse_device_uri(text);
    expect_sentence(uri, "device \"" + std::string(text) + "\": not a controller");
    EXPECT_EQ(uri.error().code, EINVAL);
  }
}

TEST(DeviceUri, other_devices_are_refused) {
  for (const char* text : {"", "nvme0", "/dev/sda", "emu", "EMU:", "emu:x", "tcp:1.2.3.4", "?relays=4"}) {
    expect_sentence(parse_device_uri(text), "device \"" + std::string(text) + "\": unknown kind of device");
  }
}

TEST(DeviceUri, options_that_do_not_apply_are_refused) {
  for (const char* option : {"speed=9", "netns=a", "dialect=v1", "lease=3", "faults=1", "reset_every=1M",
                             "relay=4", "RELAYS=4", "=4"}) {
    expect_sentence(
        parse_device_uri("/dev/nvme0?" + std::string(option)),
        "unknown option \"" + std::string(option) + "\" (relays=N, passthrough=auto|io_uring|ioctl)");
  }
  expect_sentence(
      parse_device_uri("emu:?speed=9"),
      "unknown option \"speed=9\" (relays=N, netns=NAME, dialect=v1|v1-fixed|v2, lease=S, faults=SEED, "
      "reset_every=SIZE, restart_every=SIZE, gone_every=SIZE)");
  expect_sentence(parse_device_uri("emu:?relays=4&&netns=a"), "unknown option \"\"");
  expect_sentence(parse_device_uri("emu:?dialect=v3"), "dialect=v3 is unknown (v1, v1-fixed, v2)");
}

TEST(DeviceUri, faults_have_a_seed_and_sizes) {
  const Result<DeviceUri> uri = parse_device_uri(
      "emu:?faults=18446744073709551615&reset_every=64M&restart_every=3K&gone_every=7&lease=2&dialect=v2");
  ASSERT_TRUE(uri);
  EXPECT_EQ(address_of<EmulatedAddress>(uri).faults.seed, UINT64_MAX);
  EXPECT_EQ(address_of<EmulatedAddress>(uri).faults.reset_every, 64u << 20);
  EXPECT_EQ(address_of<EmulatedAddress>(uri).faults.restart_every, 3u << 10);
  EXPECT_EQ(address_of<EmulatedAddress>(uri).faults.gone_every, 7u);
  EXPECT_EQ(address_of<EmulatedAddress>(uri).drive.lease, std::chrono::seconds(2));
  EXPECT_EQ(emulated("emu:?dialect=v2&reset_every=17179869183G").faults.reset_every, UINT64_C(17179869183)
                                                                                         << 30);
  EXPECT_FALSE(emulated("emu:?dialect=v2&lease=3600").faults.any());
  EXPECT_TRUE(emulated("emu:?dialect=v2&faults=0").faults.any());
}

TEST(DeviceUri, bad_faults_are_named) {
  for (const char* value : {"", "0", "K", "0G", "-1", "1.5M", "64k", "64MB", "17179869184G", "1 M"}) {
    for (const char* key : {"reset_every=", "restart_every=", "gone_every="}) {
      const Result<DeviceUri> uri = parse_device_uri("emu:?dialect=v2&" + (key + std::string(value)));
      expect_sentence(uri, key + std::string(value) + " is not a number of bytes");
      EXPECT_EQ(uri.error().code, EINVAL);
    }
  }
  for (const char* value : {"", "x", "-1", "1K", "18446744073709551616"}) {
    expect_sentence(parse_device_uri("emu:?dialect=v2&faults=" + std::string(value)),
                    "faults=" + std::string(value) + " is not a seed");
  }
  expect_sentence(parse_device_uri("emu:?dialect=v2&lease=0"), "lease=0 is out of range (1-3600)");
}

TEST(DeviceUri, the_first_generation_has_no_faults_to_survive) {
  for (const char* option : {"faults=1", "reset_every=1M", "restart_every=1M", "gone_every=1M", "lease=3"}) {
    expect_sentence(parse_device_uri("emu:?dialect=v1&" + std::string(option)),
                    option + std::string(" needs dialect=v2: the first generation loses all at"));
  }
}

TEST(DeviceUri, a_netns_is_a_file_name) {
  for (const std::string& name : {std::string(), std::string("."), std::string(".."), std::string("a/b"),
                                  std::string("../self"), std::string("a\0b", 3), std::string(256, 'n')}) {
    expect_sentence(parse_device_uri("emu:?netns=" + name),
                    "netns=" + printable(name) + " cannot be a namespace's name");
  }
  EXPECT_EQ(emulated("emu:?netns=" + std::string(255, 'n')).drive.netns.size(), 255u);
}

// --- NVMe/TCP ---

const std::string csd_nqn = "nqn.2014-08.org.example:csd/1";

NvmeTcpAddress target_of(const std::string& text) {
  const Result<DeviceUri> uri = parse_device_uri(text);
  EXPECT_TRUE(uri) << uri.error().text;
  if (!uri) return {};
  const auto address = address_of<NvmeTcpAddress>(uri);
  EXPECT_EQ(uri->text, text);
  EXPECT_EQ(address.subsystem, csd_nqn);
  return address;
}

TEST(DeviceUri, nvme_tcp_has_a_host_and_a_port) {
  const NvmeTcpAddress target = target_of("nvme-tcp://192.0.2.7:4420/" + csd_nqn);
  EXPECT_EQ(target.transport, NvmeTcpAddress::Transport::tcp);
  EXPECT_EQ(target.endpoint.text(), "192.0.2.7:4420");
  EXPECT_EQ(target.host, "");
  EXPECT_FALSE(target.digests) << "the way there decides";
  EXPECT_EQ(target_of("nvme-tcp://[2001:db8::1]:1/" + csd_nqn).endpoint.text(), "[2001:db8::1]:1");
  EXPECT_EQ(target_of("nvme-tcp://drive.local:4420/" + csd_nqn).endpoint.kind, Endpoint::Kind::name);
}

TEST(DeviceUri, the_path_of_a_unix_socket_ends_at_the_last_name_of_a_subsystem) {
  EXPECT_EQ(target_of("unix:/run/csd.sock/" + csd_nqn).path, "/run/csd.sock");
  EXPECT_EQ(target_of("unix:/run/nqn.x/sock/" + csd_nqn).path, "/run/nqn.x/sock");
  EXPECT_EQ(target_of("unix:/" + std::string(106, 'p') + "/" + csd_nqn).path.size(), 107u);
}

TEST(DeviceUri, vsock_has_two_numbers) {
  const NvmeTcpAddress target = target_of("vsock:3:4420/" + csd_nqn);
  EXPECT_EQ(target.transport, NvmeTcpAddress::Transport::vsock);
  EXPECT_EQ(target.cid, 3u);
  EXPECT_EQ(target.vsock_port, 4420u);
}

TEST(DeviceUri, nvme_tcp_takes_a_name_of_the_host_and_digests) {
  const NvmeTcpAddress both =
      target_of("unix:/s/" + csd_nqn + "?digests=header,data&hostnqn=nqn.2014-08.org.example:host");
  EXPECT_TRUE(both.digests->header && both.digests->data);
  EXPECT_EQ(both.host, "nqn.2014-08.org.example:host");
  const NvmeTcpAddress one = target_of("vsock:3:4420/" + csd_nqn + "?digests=data");
  EXPECT_TRUE(!one.digests->header && one.digests->data);
  const NvmeTcpAddress none = target_of("vsock:3:4420/" + csd_nqn + "?digests=none");
  EXPECT_FALSE(none.digests->header || none.digests->data);
  EXPECT_EQ(none.tls_key, "");
}

TEST(DeviceUri, nvme_tcp_takes_a_tls_key) {
  const NvmeTcpAddress usual = target_of("vsock:3:4420/" + csd_nqn + "?tls-key=/etc/nvsock/a=b");
  EXPECT_EQ(usual.tls_key, "/etc/nvsock/a=b");
  EXPECT_EQ(usual.tls_identity, 1u);
  EXPECT_EQ(target_of("vsock:3:4420/" + csd_nqn + "?tls-key=k&tls-identity=0").tls_identity, 0u);
}

TEST(DeviceUri, what_is_wrong_with_an_nvme_tcp_target_is_named) {
  const auto refused = [](const std::string& text, const std::string& names) {
    const auto uri = parse_device_uri(text);
    expect_sentence(uri, names);
    if (!uri) {
      EXPECT_EQ(uri.error().code, EINVAL);
      EXPECT_EQ(uri.error().text.find("device \"" + text.substr(0, 5)), 0u) << uri.error().text;
    }
  };
  for (const char* base : {"nvme-tcp://1.2.3.4:5", "unix:/run/sock", "unix:/run/sock/csd", "vsock:1:2"}) {
    refused(base, "no subsystem's name");
  }
  refused("nvme-tcp://1.2.3.4:5/csd", "\"csd\" is not a subsystem's name");
  refused("nvme-tcp://1.2.3.4:5/nqn.", "\"nqn.\" is not a subsystem's name");
  refused("vsock:1:2/nqn.a b", "\"nqn.a b\" is not a subsystem's name");
  refused("vsock:1:2/nqn." + std::string(220, 'x'), "is not a subsystem's name (nqn. and so on, at most 223");
  refused("nvme-tcp://1.2.3.4/" + csd_nqn, "no port in \"1.2.3.4\"");
  refused("nvme-tcp://1.2.3.4:70000/" + csd_nqn, "port \"70000\" is out of range");
  refused("nvme-tcp://::1:5/" + csd_nqn, "needs brackets");
  refused("unix:sock/" + csd_nqn, "\"sock\" is not an absolute path");
  refused("unix:/" + std::string(107, 'p') + "/" + csd_nqn, "is not an absolute path of at most 107 bytes");
  for (const char* place : {"x:1", "1", "1:", ":1", "1:2:3", "4294967296:1", "-1:5"}) {
    refused("vsock:" + std::string(place) + "/" + csd_nqn, "a vsock address is CID:PORT, two numbers");
  }
  const std::string right = "vsock:1:2/" + csd_nqn;
  refused(right + "?digests=", "digests= is unknown (header, data, header,data or none)");
  refused(right + "?digests=header,none", "digests=header,none is unknown");
  refused(right + "?hostnqn=me", "hostnqn=me is not a host's name");
  refused(right + "?tls-key=", "tls-key= is not the name of a file");
  refused(right + std::string("?tls-key=/a\0b", 13), "tls-key=/a?b is not the name of a file");
  refused(right + "?tls-identity=2", "tls-identity=2 is not a version of PSK identities (0 or 1)");
  refused(right + "?tls-identity=", "tls-identity= is not a version");
  for (const char* option : {"relays=4", "netns=a", "digest=data"}) {
    refused(right + "?" + option,
            "unknown option \"" + std::string(option) +
                "\" (hostnqn=NQN, digests=header,data|none, tls-key=FILE, tls-identity=0|1)");
  }
}

// The manual page as a reader sees it, as far as its words go: ".BI /dev/nvme N" is "/dev/nvmeN".
std::string manual_page() {
  std::ifstream file(NVSOCK_CSDFS_PAGE);
  std::string text;
  for (std::string line; std::getline(file, line);) {
    for (size_t at = 0; (at = line.find("\\-", at)) != std::string::npos;) line.replace(at, 2, "-");
    if (line.starts_with(".BI ")) std::erase(line, ' ');
    text += line + "\n";
  }
  return text;
}

TEST(DeviceUri, help_messages_and_manual_page_know_the_same_devices) {
  const std::string page = manual_page();
  const std::string help = devices_help();
  const std::string refusal = parse_device_uri("floppy:").error().text;
  for (const KnownDevice& device : known_devices()) {
    EXPECT_NE(page.find(device.form), std::string::npos) << device.form << " is not in csdfs(8)";
    EXPECT_NE(help.find(device.form), std::string::npos) << help;
    EXPECT_NE(refusal.find(device.form), std::string::npos) << refusal;
    for (const KnownOption& option : device.options) {
      const std::string_view key = option.form.substr(0, option.form.find('=') + 1);
      EXPECT_NE(page.find(key), std::string::npos) << key << " is not in csdfs(8)";
      EXPECT_NE(help.find(option.form), std::string::npos) << help;
    }
  }
  for (size_t at = 0, end; (end = help.find('\n', at)) != std::string::npos; at = end + 1)
    EXPECT_LE(end - at, 80u) << help.substr(at, end - at);
}

}  // namespace
}  // namespace nvsock
