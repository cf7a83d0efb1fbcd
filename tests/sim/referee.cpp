#include "tests/sim/referee.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "tests/sim/random.hpp"

namespace nvsock::sim {

using relay_v2::Frame;
using relay_v2::FrameType;

namespace {

uint64_t hash_of(std::span<const uint8_t> bytes) {
  uint64_t hash = bytes.size();
  size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    uint64_t word;
    __builtin_memcpy(&word, bytes.data() + at, 8);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15;
    hash ^= hash >> 29;
  }
  for (; at < bytes.size(); ++at) hash = mix(hash ^ bytes[at]);
  return hash;
}

}  // namespace

const char* name_of(FrameType type) {
  static constexpr const char* names[] = {"?",   "OPEN",  "OPENED", "DATA",      "DATAGRAM", "WINDOW",
                                          "FIN", "RESET", "LISTEN", "LISTENING", "ACCEPTED", "STAT"};
  return names[static_cast<uint8_t>(type) < std::size(names) ? static_cast<uint8_t>(type) : 0];
}

void Referee::sees_tx(uint64_t handle, uint64_t sequence, std::span<const uint8_t> batch) {
  const auto found = sessions_.find(handle);
  if (found == sessions_.end()) return;
  Session& session = found->second;
  if (sequence == 0) return story_.violation("tx with sequence 0");
  const auto [known, first] = session.host_batches.emplace(sequence, hash_of(batch));
  if (!first && known->second != hash_of(batch)) {
    story_.violation("host batch %llu was sent again with other bytes",
                     static_cast<unsigned long long>(sequence));
  }
  if (sequence < session.expected || sequence - session.expected >= tx_window_) return;
  session.held.try_emplace(sequence, batch.begin(), batch.end());
  for (auto next = session.held.find(session.expected); next != session.held.end();
       next = session.held.find(session.expected)) {
    apply(session, next->second, next->first, relay_v2::Batch::From::host);
    session.held.erase(next);
    ++session.expected;
  }
}

void Referee::sees_tx_done(uint64_t handle, uint32_t next_expected) {
  const auto found = sessions_.find(handle);
  if (found == sessions_.end()) return;
  const auto expected = static_cast<uint32_t>(found->second.expected);
  if (next_expected != expected)
    story_.violation("the drive says that it expects batch %u, not %u", next_expected, expected);
}

void Referee::sees_rx(uint64_t handle, uint64_t sequence, std::span<const uint8_t> batch) {
  const auto found = sessions_.find(handle);
  if (found == sessions_.end())
    return story_.violation("rx of session %llx, which was never made, succeeded",
                            static_cast<unsigned long long>(handle));
  Session& session = found->second;
  const auto [known, first] = session.drive_batches.emplace(sequence, hash_of(batch));
  if (!first) {
    if (known->second != hash_of(batch)) {
      story_.violation("drive batch %llu was repeated with other bytes",
                       static_cast<unsigned long long>(sequence));
    }
    return;
  }
  if (sequence != session.next_made) {
    story_.violation("the drive made batch %llu, not %llu", static_cast<unsigned long long>(sequence),
                     static_cast<unsigned long long>(session.next_made));
  }
  session.next_made = sequence + 1;
  apply(session, batch, sequence, relay_v2::Batch::From::drive);
}

void Referee::apply(Session& session, std::span<const uint8_t> bytes, uint64_t sequence,
                    relay_v2::Batch::From from) {
  const bool of_host = from == relay_v2::Batch::From::host;
  auto batch = relay_v2::Batch::parse(bytes, sequence, from);
  if (!batch) {
    return story_.violation("batch %llu of the %s does not parse", static_cast<unsigned long long>(sequence),
                            of_host ? "host" : "drive");
  }
  taken(session, batch->taken(), from);
  while (const auto frame = batch->next()) {
    story_.tell("  %s %llu: %s stream %u value %u, %zu bytes", of_host ? "tx" : "rx",
                static_cast<unsigned long long>(sequence), name_of(frame->type), frame->stream, frame->value,
                frame->payload.size());
    of_host ? host_frame(session, *frame) : drive_frame(session, *frame);
  }
}

// Runs are too short for the high half. The drive tells what it has taken at that moment; the host, what it
// had taken when the batch was made.
void Referee::taken(Session& session, uint64_t told, relay_v2::Batch::From from) {
  if (from == relay_v2::Batch::From::drive) {
    if (told != session.expected - 1)
      story_.violation("the drive says that it has taken batch %llu, not %llu",
                       static_cast<unsigned long long>(told),
                       static_cast<unsigned long long>(session.expected - 1));
    session.taken_by_drive.push_back(told);
  } else {
    if (told >= session.next_made || told < session.taken_by_host.back())
      story_.violation("the host says that it has taken batch %llu", static_cast<unsigned long long>(told));
    session.taken_by_host.push_back(std::min<uint64_t>(told, session.taken_by_drive.size() - 1));
  }
}

void Referee::host_frame(Session& session, const Frame& frame) {
  const auto wrong = [&](const char* why) {
    story_.violation("the host sent %s of stream %u, %s", name_of(frame.type), frame.stream, why);
  };
  if (frame.type == FrameType::stat) return;
  if (frame.type == FrameType::open || frame.type == FrameType::listen) {
    if (frame.stream % 2 == 0) wrong("an even number");
    StreamView& opened = session.streams[frame.stream];
    if (opened.host_batch != 0) {
      if (!opened.closed()) wrong("a number that is in use");
      // What the host knew of the drive when it made this batch.
      if (session.taken_by_drive[session.taken_by_host.back()] < opened.host_batch)
        wrong("a number that the drive may still use for the old stream");
    }
    opened = {};
    opened.host_batch = session.expected;
    const auto target = relay_v2::parse_target(frame.payload);
    opened.datagrams = target && target->type == SocketType::datagram;
    if (frame.type == FrameType::listen) {
      opened.backlog = frame.value;
    } else {
      opened.drive_credit = frame.value;
    }
    return;
  }
  const auto found = session.streams.find(frame.stream);
  if (found == session.streams.end()) return wrong("which was never opened");
  StreamView& stream = found->second;
  if (stream.host_reset) return wrong("after its RESET");
  stream.host_batch = session.expected;
  if (const uint32_t listener = std::exchange(stream.accepted_by, 0); listener != 0)
    --session.streams[listener].waiting;
  if (stream.backlog > 0 && frame.type != FrameType::reset) return wrong("a listener");
  if (!stream.opened && frame.type != FrameType::reset && !stream.drive_reset) wrong("before OPENED");
  switch (frame.type) {
    case FrameType::datagram:
      if (!stream.datagrams) wrong("of a byte stream");
      stream.host_credit -= static_cast<int64_t>(frame.payload.size() + relay_v2::datagram_cost);
      if (stream.host_credit < 0) wrong("beyond its credit");
      break;
    case FrameType::data:
      if (stream.host_ended || stream.datagrams) wrong("after its FIN, or of datagrams");
      stream.host_credit -= static_cast<int64_t>(frame.payload.size());
      if (stream.host_credit < 0) wrong("beyond its credit");
      break;
    case FrameType::window:
      stream.drive_credit += frame.value;
      if (stream.drive_credit > host_window_) wrong("beyond its largest window");
      break;
    case FrameType::fin:
      if (stream.host_ended || stream.datagrams) wrong("twice, or of datagrams");
      stream.host_ended = true;
      break;
    case FrameType::reset:
      stream.host_ended = stream.host_reset = true;
      break;
    default:
      wrong("which is not expected here");
  }
}

void Referee::accepted(Session& session, const Frame& frame) {
  const auto wrong = [&](const char* why) {
    story_.violation("the drive sent ACCEPTED of stream %u, %s", frame.stream, why);
  };
  const uint32_t number = relay_v2::parse_accepted(frame.payload).listener;
  const auto listener = session.streams.find(number);
  if (frame.stream % 2 == 1) return wrong("an odd number");
  if (const auto old = session.streams.find(frame.stream); old != session.streams.end()) {
    if (!old->second.closed()) return wrong("a number that is in use");
    if (session.taken_by_host[session.expected - 1] < old->second.drive_batch)
      wrong("a number that the host may still use for the old stream");
    // Its listener was answered by what closed it, if by nothing else.
    if (const uint32_t by = old->second.accepted_by; by != 0) --session.streams[by].waiting;
  }
  if (listener == session.streams.end() || listener->second.backlog == 0) return wrong("by no listener");
  if (listener->second.host_reset) return wrong("after its listener's RESET");
  if (!listener->second.opened) return wrong("before LISTENING");
  if (++listener->second.waiting > listener->second.backlog) wrong("more than may wait");
  StreamView& stream = session.streams[frame.stream];
  stream = {};
  stream.drive_batch = session.next_made - 1;
  stream.opened = true;
  stream.host_credit = frame.value;
  stream.accepted_by = number;
}

// What the drive makes now it makes knowing every batch of the host that took effect.
void Referee::drive_frame(Session& session, const Frame& frame) {
  const auto wrong = [&](const char* why) {
    story_.violation("the drive sent %s of stream %u, %s", name_of(frame.type), frame.stream, why);
  };
  if (frame.type == FrameType::stat) return;
  if (frame.type == FrameType::accepted) return accepted(session, frame);
  const auto found = session.streams.find(frame.stream);
  if (found == session.streams.end()) return wrong("which was never opened");
  StreamView& stream = found->second;
  stream.drive_batch = session.next_made - 1;
  if (stream.host_reset) wrong("after the host's RESET");
  if (stream.drive_reset) wrong("after its RESET");
  const auto opens = stream.backlog > 0 ? FrameType::listening : FrameType::opened;
  if (!stream.opened && frame.type != opens && frame.type != FrameType::reset) wrong("before OPENED");
  if (stream.backlog > 0 && frame.type != opens && frame.type != FrameType::reset) wrong("a listener");
  switch (frame.type) {
    case FrameType::listening:
    case FrameType::opened:
      if (frame.type != opens) wrong("which is not of that kind");
      if (stream.opened) wrong("twice");
      stream.opened = true;
      stream.host_credit = frame.value;
      break;
    case FrameType::datagram:
      if (!stream.datagrams) wrong("of a byte stream");
      stream.drive_credit -= static_cast<int64_t>(frame.payload.size() + relay_v2::datagram_cost);
      if (stream.drive_credit < 0) wrong("beyond its credit");
      break;
    case FrameType::data:
      if (stream.drive_ended || stream.datagrams) wrong("after its FIN, or of datagrams");
      stream.drive_credit -= static_cast<int64_t>(frame.payload.size());
      if (stream.drive_credit < 0) wrong("beyond its credit");
      break;
    case FrameType::window:
      if (stream.drive_ended && stream.host_ended) wrong("after both have ended");
      stream.host_credit += frame.value;
      if (stream.host_credit > drive_window_) wrong("beyond its largest window");
      break;
    case FrameType::fin:
      if (stream.drive_ended || stream.datagrams) wrong("twice, or of datagrams");
      stream.drive_ended = true;
      break;
    case FrameType::reset:
      if (stream.datagrams && stream.opened && frame.value == ECONNREFUSED) break;  // the flow goes on
      stream.drive_ended = stream.drive_reset = true;
      break;
    default:
      wrong("which is not expected here");
  }
}

}  // namespace nvsock::sim
