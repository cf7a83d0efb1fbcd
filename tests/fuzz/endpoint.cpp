// Names of places inside the drive, and what leads there. What is taken has one spelling, which is taken too
// and stays as it is.
#include "libnvsock/socket/endpoint.hpp"

#include "libnvsock/forward/forward_spec.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace nvsock;
using fuzz::check;

template <typename T>
void sentence(const Result<T>& refused) {
  const std::string& text = refused.error().text;
  check(refused.error().code != 0, "a refusal has an errno");
  check(!text.empty() && text.size() < 400, "a refusal is told in a sentence");
  check(std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; }),
        "it is printable");
}

void canonical(const Endpoint& endpoint) {
  sockaddr_storage address{};
  check((endpoint.to_sockaddr(address) == 0) == (endpoint.kind == Endpoint::Kind::name),
        "only names lack one");
  check(endpoint.host.size() <= max_host_length, "a host is not longer than may be");
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto endpoint = parse_endpoint(text)) {
    canonical(*endpoint);
    const auto again = parse_endpoint(endpoint->text());
    check(again && again->text() == endpoint->text() && again->kind == endpoint->kind,
          "one spelling, one endpoint");
  } else {
    sentence(endpoint);
  }
  if (const auto host = parse_host(text)) {
    canonical(*host);
    const auto again = parse_host(host->host);
    check(again && again->host == host->host && again->kind == host->kind, "one spelling, one host");
  } else {
    sentence(host);
  }
  if (const auto port = parse_port(text)) {
    check(*port != 0, "no port is 0");
    check(*parse_port(std::to_string(*port)) == *port, "a port's number is that port");
  } else {
    sentence(port);
  }
  if (const auto forwards = parse_forward(text)) {
    check(!forwards->empty() && forwards->size() <= max_forwards,
          "a forward is at least one, and not too many");
    for (const ForwardSpec& forward : *forwards) {
      canonical(forward.inside);
      check(forward.inside.port != 0, "it leads somewhere");
      check(!forward.name.empty() && !forward.listen.empty(), "it has a name and a place to listen");
      if (forward.name.starts_with("unix:")) continue;  // a path may hold anything
      const auto again = parse_forward(forward.name + ":" + forward.inside.text());
      check(again && again->size() == 1 && again->front().name == forward.name &&
                again->front().inside.text() == forward.inside.text(),
            "one spelling, one forward");
    }
  } else {
    sentence(forwards);
  }
  return 0;
}
