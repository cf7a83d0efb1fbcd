# The machine itself: kernel, modules, services. Everything that follows stands on it.

# Warnings about the emulated processor and its clocks are not looked at; from here on every one is.
booted() {
  not grep -E "$bugs" <(dmesg)
  dmesg --clear
}

modules() {
  modprobe -a nvme-fabrics nvme-tcp fuse
  [ -c /dev/nvme-fabrics ]
  [ -c /dev/fuse ]
}

step "the kernel boots without a complaint" booted
step "nvme-tcp, nvme-fabrics and fuse are there" modules || return
step "services run inside the drive's network" start_services
