// Writes the seeds of tests/fuzz/corpus with our own encoders: make_corpus DIRECTORY. Those named found-* are
// libFuzzer's, which reach what these do not. Run by hand when a format changes; what it writes is committed.
#include <netinet/in.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "libnvsock/nvme/tcp_pdu.hpp"
#include "libnvsock/relay/v2.hpp"

namespace fs = std::filesystem;
using namespace nvsock::relay_v2;
using Bytes = std::vector<uint8_t>;

namespace {

fs::path root;

void seed(const std::string& target, const std::string& name, const Bytes& bytes) {
  fs::create_directories(root / target);
  std::ofstream(root / target / name, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}
void seeds(const std::string& target, const std::vector<std::string>& texts) {
  for (size_t i = 0; i < texts.size(); ++i)
    seed(target, "seed-" + std::to_string(i), {texts[i].begin(), texts[i].end()});
}

template <typename Value>
Bytes encoded(const Value& value, size_t size) {
  Bytes out(size);
  encode(value, out);
  return out;
}

void batch(const std::string& name, Batch::From from, const std::vector<Frame>& frames) {
  Bytes out(4096);
  BatchWriter writer(std::span<uint8_t>(out).subspan(1));
  for (const Frame& frame : frames) writer.append(frame);
  out.resize(1 + writer.finish(1, 0));
  out[0] = from == Batch::From::drive;
  seed("batch", name, out);
}

void batches() {
  using enum Batch::From;
  const std::string node = "db.local";
  const Target to{nvsock::SocketType::stream, Family::any, 22, node};
  const Bytes target = encoded(to, encoded_size(to));
  sockaddr_storage storage{};
  auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(80);
  v6.sin6_addr = IN6ADDR_LOOPBACK_INIT;
  const Bytes address = encoded(storage, address_size);
  const Bytes opened = encoded(Opened{storage, {}}, opened_size);
  const Bytes accepted = encoded(Accepted{3, {storage, storage}}, accepted_size);
  const Bytes counters = encoded(Counters{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, counters_size);
  const Bytes some(13, 'd');
  batch("open", host, {{FrameType::open, 1, 262144, target}});
  batch("listen", host, {{FrameType::listen, 1, 16, target}});
  batch("stat-asked", host, {{FrameType::stat, 0, 0, {}}});
  batch("opened", drive, {{FrameType::opened, 1, 262144, opened}});
  batch("listening", drive, {{FrameType::listening, 1, 0, address}});
  batch("accepted", drive, {{FrameType::accepted, 2, 4096, accepted}});
  batch("stat-told", drive, {{FrameType::stat, 0, 0, counters}});
  for (const auto from : {host, drive}) {
    const std::string side = from == host ? "-from-host" : "-from-drive";
    batch("data" + side, from, {{FrameType::data, 1, 0, some}});
    batch("datagrams" + side, from, {{FrameType::datagram, 1, 0, {}}, {FrameType::datagram, 1, 0, some}});
    batch("end" + side, from,
          {{FrameType::window, 1, 65536, {}}, {FrameType::fin, 1, 0, {}}, {FrameType::reset, 3, 104, {}}});
  }
}

void pages() {
  Capabilities capabilities;
  capabilities.features = 15;
  capabilities.max_streams = 64;
  capabilities.tx_window = 8;
  capabilities.rx_window = 4;
  capabilities.vendor = "a maker";
  Bytes page = encoded(capabilities, capability_page_size);
  page.resize(capability_bytes);
  seed("capabilities", "page", page);
  capabilities = {};
  capabilities.max_batch = min_batch;
  capabilities.max_wait_ms = capabilities.lease_s = 1;
  page = encoded(capabilities, capability_page_size);
  page.resize(capability_bytes);
  seed("capabilities", "least", page);
  for (const bool resume : {false, true}) {
    const SessionRequest request{
        .resume = resume, .features = 15, .epoch = {4, 5, 6}, .key = {.handle = 7, .secret = {1, 2, 3}}};
    seed("session_request", resume ? "resume" : "attach", encoded(request, session_request_size));
  }
}

// Streams of nvme_tcp.cpp, and steps of subsystem.cpp.
void nvme() {
  namespace tcp = nvsock::nvme_tcp;
  for (const uint8_t digests : Bytes{0, 1, 2, 3}) {
    const tcp::Digests agreed{.header = (digests & 1) != 0, .data = (digests & 2) != 0};
    for (const auto from : {tcp::From::host, tcp::From::controller}) {
      const bool host = from == tcp::From::host;
      Bytes stream{static_cast<uint8_t>((host ? 0 : 1) | digests << 1 | 0x18)};
      uint8_t header[tcp::max_header_size];
      const auto append = [&](size_t size, size_t data) {
        const Bytes payload(data, 'd');
        stream.insert(stream.end(), header, header + size);
        stream.insert(stream.end(), payload.begin(), payload.end());
        if (data == 0 || !agreed.data) return;
        tcp::store_digest(payload, std::span(header).first<tcp::digest_size>());
        stream.insert(stream.end(), header, header + tcp::digest_size);
      };
      nvsock::Command command;
      command.opcode = 0xC1;
      if (host) {
        append(tcp::encode_capsule_cmd(command, 1, {}, 9, agreed, header), 9);
        append(tcp::encode_capsule_cmd(command, 2, {}, 0, agreed, header), 0);
      } else {
        append(encode(tcp::R2t{.cid = 1, .length = 8}, agreed, header), 0);
        append(encode(nvsock::nvme::CompletionEntry{.cid = 1}, agreed, header), 0);
      }
      append(encode(tcp::Data{.cid = 1, .length = 8, .last = true}, from, agreed, header), 8);
      append(tcp::encode_term(from, {tcp::FatalError::sequence, 1}, header), 0);
      seed("nvme_tcp", (host ? "host-" : "controller-") + std::to_string(digests), stream);
    }
  }
  const auto run = [](std::initializer_list<Bytes> steps) {
    Bytes all;
    for (const Bytes& step : steps) all.insert(all.end(), step.begin(), step.end());
    return all;
  };
  // Each begins with the connection and what to do, and ends with 1: the target may act.
  const Bytes admin{0, 1, 0, 32, 15, 0, 1}, enable{0, 2, 1, 0, 1}, io{1, 1, 1, 128, 0, 0, 1},
      identify{0, 7, 3, 1, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0x10, 0, 0, 1},
      write{1, 7, 1, 1, 0, 0, 0, 0, 1, 0, 1, 31, 1, 0, 0, 0, 0, 0x40, 0, 0, 1}, answer{1, 6, 1, 0, 0, 1},
      capabilities{0, 7, 12, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 0, 0, 1, 2, 0, 0, 1},
      attach{0, 7, 11, 0, 0, 0, 0, 0, 1, 0, 1, 2, 1, 0, 0, 0, 15, 0, 0, 1},
      rx{0, 7, 12, 0, 0, 0, 0, 0, 1, 0, 1, 5, 1, 1, 0, 1, 3, 0, 100, 1}, time{0, 5, 1}, gone{0, 4, 1};
  // The same by another host.
  const Bytes other_admin{1, 1, 0, 32, 15, 4, 1}, other_enable{1, 2, 1, 0, 1},
      other_resume{1, 7, 11, 0, 0, 0, 0, 0, 1, 0, 1, 2, 1, 0, 0, 1, 15, 0, 0, 1},
      other_rx{1, 7, 12, 0, 0, 0, 0, 0, 1, 0, 1, 5, 1, 1, 0, 1, 3, 0, 100, 1};
  for (const uint8_t digests : Bytes{0, 3}) {
    const Bytes open{0, 0, 1, digests, 1}, second{1, 0, 1, digests, 1};
    const std::string kind = digests == 0 ? "" : "-digests";
    seed("subsystem", "relay" + kind,
         run({open, admin, enable, identify, capabilities, attach, rx, time, gone}));
    seed("subsystem", "two-hosts" + kind,
         run({open, admin, enable, attach, second, other_admin, other_enable, other_resume, other_rx, rx,
              gone}));
    seed("subsystem", "blocks" + kind, run({open, admin, enable, second, io, write, answer, gone}));
  }
}

void names() {
  seeds("endpoint", {"127.0.0.1:22", "[::1]:80", "[fe80::1]:443", "db.local:5432", "a_b.c:http", "Name:1",
                     "::1", "[::1]", "127.1:80", "010.0.0.1", "[::ffff:1.2.3.4]:65535", "65536", "022", "ssh",
                     "a..b:1", std::string("127.0.0.1\0:22", 13)});
  seeds("device_uri",
        {"/dev/nvme0", "/dev/nvme12?relays=9", "emu:", "emu:?relays=7&netns=drive&dialect=v1",
         "emu:?relays=513", "/dev/nvme0n1", "emu:?netns=../x", "emu:?dialect=v2", "emu:?relays=1&relays=2",
         "emu:?dialect=v2&faults=7&reset_every=64M&restart_every=9&gone_every=1G&lease=1",
         "nvme-tcp://[::1]:4420/nqn.2014-08.org.example:csd?digests=header,data",
         "unix:/run/nqn.x/s/nqn.y?hostnqn=nqn.z", "vsock:3:4420/nqn.y?digests=none",
         "unix:/s/nqn.y?tls-key=/etc/key&tls-identity=0"});
  seeds("tls_key",
        {"NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:",
         "NVMeTLSkey-1:02:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3W2LxIcLXVsDn8kXZQ==:",
         "NVMeTLSkey-1:00:AAAA:", "NVMe0R01 nqn.host nqn.csd",
         "NVMe1R02 nqn.host nqn.csd QhW2+Rp6RzHlNtCslyRxMnwJ11tKKhz8JCAQpQ+XUD8f9td1VeH5h53yz2wKJG1a"});
  const auto look_up = [](char where, const std::string& name) {
    return std::string("\1") + where + static_cast<char>(name.size()) + name;
  };
  seeds("node_table",
        {look_up(1, "tcp") + look_up(2, "127.0.0.1:22"), look_up(2, "127.0.0.1") + look_up(16, "22"),
         look_up(2, "[::1]:80") + std::string("\0\20", 2) + look_up(2, "db.local:http"), look_up(1, "status"),
         look_up(3, "x"), look_up(2, "a") + look_up(16, "0")});
}

// Steps of drive_v1.cpp and host_v1.cpp: numbers as those files read them.
void runs() {
  const Bytes open{0, 0, 0}, settle{9}, read{2, 0, 0}, close{6, 0, 0},
      write{4, 5, 0, 0, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 0};
  const auto run = [](uint8_t flags, std::initializer_list<Bytes> steps) {
    Bytes all{flags};
    for (const Bytes& step : steps) all.insert(all.end(), step.begin(), step.end());
    return all;
  };
  const Bytes service_sends{11, 0, 16, 0}, service_ends{10, 0, 1}, service_resets{10, 0, 2};
  for (const uint8_t flags : {uint8_t{6}, uint8_t{7}}) {
    const std::string kind = flags == 6 ? "-well-behaved" : "-shipped";
    seed("drive_v1", "write-read" + kind, run(flags, {open, settle, write, settle, read, settle, close}));
    seed("drive_v1", "service-sends" + kind,
         run(flags, {open, settle, read, read, service_sends, settle, read, settle}));
    seed("drive_v1", "service-ends" + kind,
         run(flags, {open, settle, read, service_ends, settle, read, settle, close}));
    seed("drive_v1", "service-resets" + kind,
         run(flags, {open, settle, read, service_resets, settle, write, settle}));
    seed("drive_v1", "refused" + kind, run(flags, {{0, 1, 0}, settle, read, write, settle}));
    seed("drive_v1", "anything" + kind,
         run(flags, {{7, 0xC0, 0, 0, 0, 0, 0x80, 0, 0, 0}, {7, 6, 0, 0, 0, 0, 1}, settle}));
  }
  // connect; answers well-formed, with a batch end; write, read, end, release
  const Bytes connect{0, 0, 8, 79, 0}, opened{1, 0, 4, 1, 0}, got{1, 0, 4, 200, 0, 0}, lost{1, 0, 0, 3, 0},
      refused{1, 0, 1, 6, 0, 0}, queue{5, 0, 0, 0, 16}, take{5, 0, 1, 0, 1}, end{5, 0, 2}, release{5, 0, 4},
      too_long{1, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 0};
  seed("host_v1", "write-read", run(7, {connect, opened, queue, got, take, got, got, take, end, release}));
  seed("host_v1", "refused", run(6, {connect, refused, connect, refused, release}));
  seed("host_v1", "lost", run(7, {connect, opened, queue, lost, lost, connect}));
  seed("host_v1", "too-long", run(0, {connect, opened, too_long, take, release}));
  seed("host_v1", "many",
       run(1, {connect, connect, connect, connect, opened, opened, opened, queue, release, got, got, got}));

  // of host_nvme_tcp.cpp
  const Bytes read_large{0, 2, 5}, write_large{0, 1, 5}, write_small{0, 1, 2}, done{2, 0, 9}, drain{5},
      asked{3, 0, 0, 0, 0, 0, 0, 0, 2, 0}, part{4, 0, 1, 0, 16, 0, 0, 255, 255},
      beyond{4, 0, 1, 0, 255, 1, 0, 255, 255}, only{4, 0, 3, 0, 0, 0, 0, 255, 15};
  for (const uint8_t flags : {uint8_t{0}, uint8_t{3}}) {
    const std::string kind = flags == 0 ? "" : "-digests";
    seed("host_nvme_tcp", "read" + kind, run(flags, {read_large, part, done, read_large, only}));
    seed("host_nvme_tcp", "write" + kind,
         run(flags, {write_large, drain, asked, drain, drain, done, write_small, done}));
    seed("host_nvme_tcp", "early" + kind, run(flags, {write_large, asked, done, drain, drain, drain}));
    seed("host_nvme_tcp", "beyond" + kind, run(flags, {read_large, read_large, beyond}));
    seed("host_nvme_tcp", "fail" + kind, run(flags, {read_large, write_large, part, {6}, part}));
  }
  seed("host_nvme_tcp", "nonsense", run(4, {{1, 8, 'S', 'S', 'H', '-', '2', '.', '0', '-'}}));
}

Bytes joined(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// Steps of drive_v2.cpp; the last byte of a command says that none follows from its completion.
void drive_v2_runs() {
  const Bytes attach{0, 1, 1, 0, 0, 0, 0, 1, 0, 0}, detach{1, 0, 0}, reset{9}, time{10}, incoming{11, 0};
  const auto tx = [](const Bytes& frame) { return joined({{3, 0}, frame, {0, 0, 0, 0, 0}}); };
  const Bytes open = tx({0, 0, 0, 0, 64, 8, 1, 1}), open_little = tx({0, 0, 0, 40, 0, 8, 1, 1}),
              open_datagrams = tx({0, 0, 0, 0, 64, 8, 0, 1}), listen = tx({3, 0, 0, 4, 0, 8, 1, 1}),
              data = tx({4, 1, 0, 0, 0, 1, 20}), much = tx({4, 1, 0, 0, 0, 0, 0, 200}),
              datagram = tx({7, 1, 0, 0, 0, 1, 20}), fin = tx({8, 1, 0, 0, 0}),
              window = tx({10, 1, 0, 0, 16}), stat = tx({12, 0, 0, 0, 0}), end = tx({13, 1, 0, 0, 0});
  const Bytes rx{7, 0, 0, 0, 0, 0, 16, 0, 0}, again{7, 14, 0, 0, 0, 0, 0, 1, 0};
  const Bytes connects{12, 0, 0}, refuses{12, 0, 3, 110}, gives{12, 0, 0, 1, 30}, ends{12, 0, 2, 1},
      fails{12, 0, 2, 0, 1, 103}, takes{12, 0, 3, 0, 255};
  for (const auto& [name, options] :
       {std::pair{"", Bytes{5, 3, 3, 3, 3}}, std::pair{"-small", Bytes{1, 0, 1, 0, 0}}}) {
    const auto run = [&, suffix = name, first = options](const char* what,
                                                         std::initializer_list<Bytes> steps) {
      seed("drive_v2", std::string(what) + suffix, joined({first, attach, joined(steps)}));
    };
    run("echo", {open, connects, rx, rx, data, takes, gives, again, fin, ends, rx, detach});
    run("credit", {open_little, connects, rx, gives, rx, gives, rx, rx, window, gives, rx});
    run("refused", {open, refuses, rx, open, open, open, rx, stat, rx, time});
    run("queued", {open, connects, rx, takes, data, much, much, window, takes, rx, end, takes, time});
    run("fails", {open, connects, rx, rx, data, fails, data, rx});
    run("datagrams", {open_datagrams, connects, rx, takes, datagram, gives, gives, rx, fails, rx, takes});
    run("listener",
        {listen, rx, incoming, rx, tx({10, 2, 0, 0, 16}), gives, rx, takes, tx({13, 1, 0, 0, 0})});
    run("reset", {open, connects, rx, rx, reset, attach, data, rx, time, time});
    run("number-again",
        {open, connects, rx, data, end, tx({0, 16 + 1, 0, 0, 64, 8, 1, 1}), connects, rx, data});
    run("two-hosts", {attach, {0, 1, 1, 6, 0, 0, 0, 1, 0}, {3, 0, 13, 1, 0, 0, 0, 0, 0, 0, 240, 0}, rx});
    run("breaks-a-rule", {open, connects, rx, rx, open, rx, tx({4, 9, 0, 0, 0, 1, 20}), attach, rx});
  }
}

// Steps of host_v2.cpp; answers end their batch.
void host_v2_runs() {
  const Bytes connect{0, 0, 8, 79, 0}, connect_flow{0, 0, 8, 79, 1}, write{3, 0, 0, 0, 4},
      read{3, 0, 1, 0, 16}, end{3, 0, 2}, release{3, 0, 4}, release_when_told{3, 0, 5}, abort{3, 0, 6, 103},
      time{2, 0, 8}, listen{12, 15, 0, 8, 79}, close{13, 0}, ask{14}, keeps{0}, takes{0}, leaves{3},
      closes{3};
  const Bytes much_write{3, 0, 0, 0, 64}, answer_last{6, 1, 4, 0, 1}, page{6, 0, 4, 0, 0, 1},
      page_anew{6, 0, 4, 1, 9, 0, 1};
  const Bytes done{6, 0, 4, 0, 1}, unknown{6, 0, 0, 3, 1}, stale{6, 0, 2, 116, 1},
      garbage{6, 0, 3, 64, 0, 0, 0, 4, 'N', 'V', 'B', '2', 1};
  const auto rx = [](const Bytes& frame) { return joined({{6, 0, 4, 1}, frame, {1, 0, 1, 1}}); };
  const auto opened_as = [&](uint8_t number) { return rx({0, number, 1, 0, 16}); };
  const auto listening_as = [&](uint8_t number) { return rx({7, number, 1, 0, 0}); };
  const auto ended_with = [&](uint8_t error) { return rx({6, 1, 1, error, 0}); };
  const Bytes opened = opened_as(1), data = rx({2, 1, 1, 0, 0, 1, 20}), much = rx({2, 1, 1, 0, 0, 0, 0, 8}),
              window = rx({4, 1, 1, 0, 16}), fin = rx({5, 1, 1, 0, 0}), reset = ended_with(104),
              listening = listening_as(1), accepted = rx({8, 2, 1, 0, 16, 1}),
              data_of_accepted = rx({2, 2, 1, 0, 0, 1, 20}), stat = rx({9, 1, 0, 0}),
              datagram = rx({10, 1, 1, 0, 0, 1, 20});
  for (const auto& [name, options] : {std::pair{"", Bytes{15, 3, 3, 100, 0, 3, 3, 10, 2}},
                                      std::pair{"-small", Bytes{15, 1, 0, 1, 0, 0, 0, 1, 0}}}) {
    const auto run = [&, suffix = name, first = options](const char* what,
                                                         std::initializer_list<Bytes> steps) {
      seed("host_v2", std::string(what) + suffix, joined({first, joined(steps)}));
    };
    run("echo", {connect, done, done, opened, write, data, done, read, much, read, end, fin, release, done});
    run("refused", {connect, done, done, reset, read, release, connect, done});
    run("credit", {connect, done, done, opened, much_write, write, answer_last, window, done, answer_last,
                   release, done});
    run("resumed",
        {connect, done, done, opened, write, unknown, unknown, time, page, done, done, data, read});
    run("lost", {connect, done, done, opened, write, stale, time, stale, page_anew, done, connect, done});
    run("garbage", {connect, done, done, garbage, time, done, page, done, done, garbage});
    run("unasked", {connect, done, done, opened, accepted, done, stat, data, data, time, done});
    run("silent", {connect, done, time, time, time, time, release, time, time});
    run("let-go-when-told", {connect, done, done, release_when_told, opened, done, ask, stat, done});
    run("aborted", {connect, done, done, opened, much_write, abort, done, done, release, done});
    run("datagrams", {connect_flow, done, done, opened, write, datagram, done, read, write, end, release});
    run("flow-quiet",
        {connect_flow, done, done, opened, ended_with(0), write, opened_as(1), done, write, release});
    run("flow-refused", {connect_flow, done, done, opened, ended_with(111), read, write, done, release});
    run("flow-lost",
        {connect_flow, done, done, opened, write, stale, time, stale, page_anew, done, write, opened_as(1)});
    run("flow-let-go-unsent", {connect_flow, done, done, opened, stale, write, release});
    run("accepted", {listen, done, done, listening, keeps, accepted, takes, keeps, done, data_of_accepted,
                     write, read, end, done, close, done, release, done});
    run("accepted-not-taken", {listen, done, done, listening, keeps, accepted, leaves, keeps, done, close});
    run("listener-closes-when-told", {listen, done, done, listening, closes, done, listen, done});
    run("listener-closes-when-accepting",
        {listen, done, done, listening, keeps, accepted, takes, closes, done});
    run("listener-refused",
        {listen, done, done, ended_with(98), keeps, time, listening_as(1), keeps, done, close});
    run("listener-closed-refused", {listen, done, done, ended_with(98), keeps, close, time});
    run("listener-closed-unsent", {listen, close, done, listen, done, close});
    run("listener-closed-asked", {listen, done, done, close, accepted, done, listening, time});
    run("listener-lost", {listen, done, done, listening, keeps, stale, keeps, time, page_anew, done, done,
                          listening_as(1), keeps, close, done});
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  root = argv[1];
  batches();
  nvme();
  pages();
  names();
  runs();
  drive_v2_runs();
  host_v2_runs();
  return 0;
}
