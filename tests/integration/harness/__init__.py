"""What the integration tests share, one idea a file. A test takes from it what it names, `from harness.wait import
eventually`, and begins with harness.case: CsdTest cleans up, and main() runs the file, by ctest or by hand.

    settings     where the programs under test are, how much and how patiently
    wait         for a condition; for a call that blocks
    process      children that die with the test, and what /proc tells of a process
    netns        network namespaces: the inside of a drive
    servers      TCP servers in threads, and the bytes they send
    line_server  one that does what its client tells it
    echo_server  one for thousands of connections, in a process of its own
    sshd         a real one
    mount        csdfs, from mount to exit
    mount_abi    the ioctls of a mount's files
    descriptors  read, write and poll, as tests need them
    case         the base of every test
    person       another user
    clients      the base of tests of network programs that are preloaded
    target       csd-target, and the base of tests of csdfs on it
    cutter       the broken network between the two
    nvme_tcp     an NVMe/TCP host written from the specification
    nvme_tls     its keys
    relay        its relay sessions

Nothing here sleeps for a fixed time: every wait is for a condition, with a bound. Whatever is started is registered
for cleanup at once. tools/leftovers says whether all of it was cleaned up.
"""
