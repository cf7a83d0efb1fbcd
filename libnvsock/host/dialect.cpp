#include "libnvsock/host/dialect.hpp"

namespace nvsock {

Result<ListenerHandle> Dialect::listen(const Endpoint& where, uint32_t, ListenerObserver*) {
  return Error{ENOTSUP, "cannot listen at " + where.text() + " inside the drive: it does not offer that (" +
                            std::string(name()) + ")"};
}

}  // namespace nvsock
