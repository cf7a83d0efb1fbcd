// The library's front door, over the embedded drive and real sockets.
#include "libnvsock/device.hpp"

#include <cstring>
#include <functional>
#include <thread>

#include "tests/unit/support.hpp"

namespace nvsock {
namespace {

using test::expect_sentence;
using test::Listener;
using test::Peer;

struct Observer final : StreamObserver {
  void on_stream_change(Stream&) override { ++told; }
  unsigned told = 0;
};

class DeviceTest : public ::testing::Test {
 protected:
  void open(const std::string& uri) {
    auto opened = Device::open(loop, uri, {});
    ASSERT_TRUE(opened) << opened.error().text;
    device = std::move(*opened);
  }
  StreamHandle connect(const Listener& listener) {
    Result<StreamHandle> stream = device->connect(*parse_endpoint(listener.text()), &observer);
    EXPECT_TRUE(stream);
    return stream ? std::move(*stream) : nullptr;
  }
  bool run_until(const std::function<bool()>& done) { return test::run_until(loop, done); }

  asio::io_context loop;
  Observer observer;
  std::unique_ptr<Device> device;
};

TEST_F(DeviceTest, tells_what_it_is) {
  open("emu:");
  EXPECT_EQ(device->dialect(), "v2");
  open("emu:?relays=3&dialect=v1");
  EXPECT_EQ(device->model(), "Linux pci_epf");
  EXPECT_EQ(device->dialect(), "v1");
  EXPECT_EQ(device->port(), "emulated drive");
  EXPECT_EQ(device->uri().relays(), 3u);
}

TEST_F(DeviceTest, sentences_name_what_cannot_be_opened) {
  const auto missing = Device::open(loop, "emu:?netns=no-such-namespace", {});
  expect_sentence(missing,
                  "network namespace \"no-such-namespace\": /run/netns/no-such-namespace: No such file");
  expect_sentence(missing, "ip netns add no-such-namespace");
  EXPECT_EQ(missing.error().code, ENOENT);
  expect_sentence(Device::open(loop, "emu:?speed=11", {}), "speed=11");
  expect_sentence(Device::open(loop, "/dev/nvme988", {}), "cannot open /dev/nvme988: ");
}

TEST_F(DeviceTest, refused_connection_is_told_through_the_stream) {
  open("emu:");
  Listener listener;
  listener.close();
  const StreamHandle stream = connect(listener);
  ASSERT_TRUE(run_until([&] { return stream->state() == Stream::State::failed; }));
  EXPECT_EQ(stream->take_error(), ECONNREFUSED);
  EXPECT_GT(observer.told, 0u);
}

TEST_F(DeviceTest, a_reset_by_the_peer_is_econnreset) {
  for (const char* uri : {"emu:", "emu:?dialect=v1-fixed", "emu:?dialect=v1"}) {
    open(uri);
    Listener listener;
    const StreamHandle stream = connect(listener);
    ASSERT_TRUE(run_until([&] { return stream->state() == Stream::State::established; }));
    listener.accept().reset();
    // A shipped drive tells writes only.
    ASSERT_TRUE(run_until([&] {
      if (stream->room() > 0 && stream->unsent() == 0)
        stream->write({{}, reinterpret_cast<const uint8_t*>("x"), 1});
      return stream->broken();
    })) << uri;
    EXPECT_EQ(stream->take_error(), ECONNRESET) << uri;
  }
}

TEST_F(DeviceTest, the_peers_end_is_end_of_stream_and_ours_is_the_peers) {
  open("emu:");
  Listener listener;
  StreamHandle stream = connect(listener);
  ASSERT_TRUE(run_until([&] { return stream->state() == Stream::State::established; }));
  Peer peer = listener.accept();
  peer.send("bye");
  peer.end_writing();
  ASSERT_TRUE(run_until([&] { return stream->receive_ended(); }));
  EXPECT_EQ(stream->readable(), 3u);
  stream->write({{}, reinterpret_cast<const uint8_t*>("thanks"), 6});
  stream.reset();
  std::string got;
  ASSERT_TRUE(run_until([&] {
    got += peer.receive_some();
    return peer.ended();
  }));
  EXPECT_EQ(got, "thanks");
}

TEST_F(DeviceTest, a_device_with_everything_in_flight_can_go) {
  open("emu:");
  Listener listener(16, 4096);
  StreamHandle stream = connect(listener);
  StreamHandle opening = connect(listener);
  ASSERT_TRUE(run_until([&] { return stream->state() == Stream::State::established; }));
  const std::string bytes(Stream::send_limit, 'x');
  stream->write({{}, reinterpret_cast<const uint8_t*>(bytes.data()), Stream::send_limit});
  opening.reset();
  stream.reset();
  device.reset();
  loop.restart();
  loop.poll();  // handlers of what was cancelled; a sanitizer sees whether they touch what is gone
}

// Bytes of the client, back by the same way, while both directions are busy.
class EchoTest : public DeviceTest, public ::testing::WithParamInterface<uint32_t> {};

TEST_P(EchoTest, ten_megabytes_come_back_unchanged) {
  constexpr size_t total = 10'000'000;
  const uint32_t chunk = GetParam();
  open("emu:");
  Listener listener;
  size_t echoed = 0;
  std::thread echo([&] {
    Peer peer = listener.accept();
    char part[30'000];
    for (ssize_t size; (size = recv(peer.fd(), part, sizeof part, 0)) > 0;
         echoed += static_cast<size_t>(size)) {
      peer.send({part, static_cast<size_t>(size)});
    }
  });

  const std::string bytes = test::pattern(total);
  BufferPool pool(128 * 1024, 4);
  StreamHandle stream = connect(listener);
  size_t sent = 0, received = 0;
  bool same = true;
  EXPECT_TRUE(run_until([&] {
    while (sent < total && stream->room() > 0) {
      const BufferRef block = pool.take();  // page-aligned: large chunks go without a copy
      const auto size = static_cast<uint32_t>(std::min<size_t>(chunk, total - sent));
      std::memcpy(block.data(), bytes.data() + sent, size);
      sent += stream->write({block, block.data(), size});
    }
    while (stream->readable() > 0) {
      iovec part{};
      size_t size = stream->readable();
      stream->gather(&part, 1, size);
      same =
          same && received + size <= total && std::memcmp(part.iov_base, bytes.data() + received, size) == 0;
      received += size;
      stream->consume(size);
    }
    return received >= total || stream->broken();
  }));
  EXPECT_TRUE(same);
  EXPECT_EQ(received, total);
  EXPECT_EQ(stream->bytes_received(), total);
  EXPECT_EQ(stream->unsent(), 0u);
  stream.reset();
  EXPECT_TRUE(run_until([&] { return device->drained(); }));
  echo.join();
  EXPECT_EQ(echoed, total);
  EXPECT_EQ(device->counters().bytes_sent, total);
  EXPECT_EQ(device->counters().bytes_received, total);
  EXPECT_EQ(device->counters().streams_now, 0u);
  EXPECT_EQ(pool.lent(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Chunk, EchoTest, ::testing::Values(1000, 128 * 1024),
                         ::testing::PrintToStringParamName());

}  // namespace
}  // namespace nvsock
