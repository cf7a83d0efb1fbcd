"""Where the programs under test are, how much tests move and how long they wait. All of it comes from the environment:

    NVSOCK_BUILD    the build (default: build/ of this tree)
    NVSOCK_SCALE    shrinks sizes for slow builds (default: 1)
    NVSOCK_SLOW     stretches bounds for them (default: 1)
    NVSOCK_DIALECT  the generation that the emulated drive speaks, where a test does not choose (harness.mount.emu)
"""

import os

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
BUILD = os.path.realpath(os.environ.get("NVSOCK_BUILD", os.path.join(ROOT, "build")))
CSDFS = os.path.join(BUILD, "bin", "csdfs")
SHIM = os.path.join(BUILD, "lib", "libnvsock.so")
TARGET = os.path.join(BUILD, "bin", "csd-target")
SCALE = float(os.environ.get("NVSOCK_SCALE", "1"))
SLOW = float(os.environ.get("NVSOCK_SLOW", "1"))
DIALECT = os.environ.get("NVSOCK_DIALECT")
MIB = 1 << 20
