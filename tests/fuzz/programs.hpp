// The programs of a host: they open connections and flows of datagrams, and read, write, end, break and let
// go of them as the input says, also from within the call that tells them of a change.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "libnvsock/host/dialect.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace nvsock::fuzz {

class Programs final : private StreamObserver {
 public:
  // `most_readable`: what a stream may hold for its reader.
  Programs(Input& input, size_t most_readable) : input_(input), most_readable_(most_readable) {}

  Endpoint any_endpoint() {
    Endpoint endpoint;
    endpoint.kind = static_cast<Endpoint::Kind>(input_.below(3));
    endpoint.host = std::string(1 + input_.below(max_host_length), 'h');
    endpoint.port = 1 + input_.number<uint8_t>();
    return endpoint;
  }
  void connect(Dialect& dialect) {
    Endpoint endpoint = any_endpoint();
    if (input_.below(2) == 1) endpoint.type = SocketType::datagram;
    if (auto stream = dialect.connect(endpoint, this)) streams_.push_back(std::move(*stream));
  }
  // One that the drive accepted.
  void take(StreamHandle& stream) {
    check(stream->state() == Stream::State::established && stream->addresses() != nullptr,
          "what was accepted is established, and from somewhere");
    stream->observe(this);
    inspect(*stream);
    streams_.push_back(std::move(stream));
  }

  // One thing that one of them does with its stream.
  void act() {
    if (streams_.empty()) return;
    const size_t which = input_.below(streams_.size());
    Stream& stream = *streams_[which];
    inspect(stream);
    switch (input_.below(7)) {
      case 0:
        return stream.is_datagram() ? write_datagram(stream) : write(stream);
      case 1:
        return stream.is_datagram() ? read_datagram(stream) : read(stream);
      case 2:
        return stream.shutdown_write();
      case 3:
        return stream.shutdown_read();
      case 4:
        streams_.erase(streams_.begin() + static_cast<ptrdiff_t>(which));
        return;
      case 5:
        let_go_ = stream.id();
        return;
      default:
        stream.abort(1 + static_cast<int>(input_.below(133)));
    }
  }

  void let_go_of_all() { streams_.clear(); }

 private:
  void on_stream_change(Stream& stream) override {
    inspect(stream);
    if (let_go_ != stream.id()) return;
    let_go_ = 0;
    std::erase_if(streams_, [&](const StreamHandle& held) { return held.get() == &stream; });
  }

  void inspect(Stream& stream) const {
    static_cast<void>(stream.poll_events());
    check(stream.unsent() <= Stream::send_limit, "the send queue is bounded");
    check(stream.readable() <= most_readable_, "so is what the drive may send");
    check(stream.next_read() <= stream.readable(), "what a read may give is there");
    check(stream.state() != Stream::State::connecting || !stream.can_read(), "nothing before the connection");
  }

  void write(Stream& stream) {
    const std::vector<uint8_t> bytes(1 + input_.number<uint16_t>(), 'w');
    const size_t room = stream.room();
    const size_t taken =
        stream.write({.buffer = {}, .data = bytes.data(), .size = static_cast<uint32_t>(bytes.size())});
    check(taken == std::min(room, bytes.size()), "a write takes what there is room for");
  }

  void write_datagram(Stream& stream) {
    const std::vector<uint8_t> bytes(input_.number<uint16_t>(), 'w');
    const size_t before = stream.unsent();
    const int error = stream.write_datagram(bytes);
    check(error == 0 || error == EMSGSIZE || error == EAGAIN || error == EPIPE, "a datagram is taken or not");
    check(error == 0 || stream.unsent() == before, "one that is not leaves nothing");
  }

  void read(Stream& stream) {
    iovec parts[8];
    size_t size = std::min<size_t>(1 + input_.number<uint16_t>(), stream.readable());
    const int used = stream.gather(parts, 8, size);
    size_t sum = 0;
    for (int i = 0; i < used; ++i) {
      sum += parts[i].iov_len;
      touched_ = touched_ ^ static_cast<const uint8_t*>(parts[i].iov_base)[parts[i].iov_len - 1];
    }
    check(sum == size && size <= stream.readable(), "gather tells what it covers");
    stream.consume(size);
    static_cast<void>(stream.take_error());
  }

  void read_datagram(Stream& stream) {
    const size_t size = input_.number<uint16_t>();
    static_cast<void>(stream.take_error());
    if (!stream.can_read()) return;
    std::vector<uint8_t> bytes(stream.next_read());
    check(stream.peek(bytes.data(), bytes.size()) == bytes.size(), "a datagram is there as a whole");
    stream.consume(std::min(size, bytes.size()));
  }

  Input& input_;
  const size_t most_readable_;
  std::vector<StreamHandle> streams_;
  uint64_t let_go_ = 0;  // the id of a stream, with its next change
  volatile uint8_t touched_ = 0;
};

}  // namespace nvsock::fuzz
