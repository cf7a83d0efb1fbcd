// The descriptors that a daemon was started with. Call both first in main(), before anything is opened
// and while there is one thread.
#pragma once

namespace nvsock::daemon {

// Started with 0, 1 or 2 closed, as some launchers do, our own descriptors would take their places.
void occupy_standard_descriptors();

// What the launcher left open by mistake: a daemon would hold it, and whatever waits for its end, for good.
// All but 0, 1 and 2.
void close_inherited_descriptors();

}  // namespace nvsock::daemon
