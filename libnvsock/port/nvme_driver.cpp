#include "libnvsock/port/nvme_driver.hpp"

#include <libnvme.h>

#include <cerrno>
#include <cstring>

namespace nvsock {

Result<std::shared_ptr<const ControllerFile>> open_controller(const std::string& name) {
  const int fd = nvme_open(name.c_str());
  if (fd < 0) {
    const int code = errno;
    return Error{code, "cannot open /dev/" + name + ": " + std::strerror(code)};
  }
  return std::make_shared<const ControllerFile>(fd);
}

}  // namespace nvsock
