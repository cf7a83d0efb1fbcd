# csd-target on a vsock socket, as a guest offers a drive to its host; here the loopback, CID 1, is both.

vsock_nqn=nqn.2026-11.test.nvsock:vsock

vsock_listens() { grep -qF 'listening on vsock:1:4420' /run/target.log; }

vsock_target_starts() {
  modprobe vsock_loopback
  setsid csd-target --listen vsock:1:4420 --nqn $vsock_nqn --netns $drive >/run/target.log 2>&1 &
  within 10 vsock_listens || {
    cat /run/target.log
    return 1
  }
}

vsock_mounts() {
  csdfs vsock:1:4420/$vsock_nqn $mount
  mounted
  expect '^port: NVMe/TCP to vsock:1:4420' cat $mount/status
}

# The other way round: a port of this host, for its guests.
vsock_forwards() {
  echo forward vsock:8080:80 >$mount/ctl
  printf 'GET /small HTTP/1.0\r\n\r\n' | timeout 20 socat -t 20 - VSOCK-CONNECT:1:8080 |
    tail -c 2m | same small
  echo unforward vsock:8080 >$mount/ctl
}

vsock_target_ends() {
  local pid
  pid=$(pidof csd-target)
  kill -s TERM "$pid"
  within 10 gone "$pid"
}

step "csd-target listens on vsock" vsock_target_starts || return
step "csdfs mounts it" vsock_mounts || return
step "head reads a connection, errors have their names" files
step "dd sends every byte" sent large
step "socat sends and receives at the same time" polled
step "ssh over the shim, both ways" ssh_over_shim
step "a vsock port of this host leads into the drive" vsock_forwards
step "unmounting ends csdfs" unmounted
step "SIGTERM ends csd-target" vsock_target_ends
step "the kernel has nothing to say about it" kernel_is_content
