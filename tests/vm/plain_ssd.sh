# An NVMe SSD that is not a CSD (QEMU's): csdfs must refuse it and leave it as it was.

ssd_works() {
  [ -c /dev/nvme0 ]
  [ -b /dev/nvme0n1 ]
  expect QEMU nvme list
  dd if=/srv/www/small of=/dev/nvme0n1 bs=1M oflag=direct
  dd if=/dev/nvme0n1 bs=1M count=2 iflag=direct | same small
}

ssd_refused() {
  echo 1 >$tracing/events/nvme/nvme_setup_cmd/enable
  fails '^csdfs: /dev/nvme0 is not a CSD \(model "QEMU NVMe Ctrl": ' csdfs /dev/nvme0 $mount
  not_mounted
  no_csdfs
  echo 0 >$tracing/events/nvme/nvme_setup_cmd/enable
}

# What csdfs sent meanwhile, from the driver's own trace. Opcode C0h asks a CSD whether it is one; what it means to
# another drive nobody knows, so it must be the only one, with every parameter 0.
ssd_asked() {
  local question='cmd=\(0xc0 cdw10=(00 ?)+\)'
  [ "$(grep -cE "csdfs.*$question" $tracing/trace)" = 1 ]
  not grep -vE "^#|nvme_admin_identify|$question" $tracing/trace
}

ssd_unharmed() {
  dd if=/dev/nvme0n1 bs=1M count=2 iflag=direct | same small
  [ "$(cat /sys/class/nvme/nvme0/state)" = live ]
  expect '^num_err_log_entries\s*: 0' nvme smart-log /dev/nvme0
}

step "an ordinary SSD is /dev/nvme0" ssd_works
step "csdfs refuses it as not a CSD" ssd_refused
step "having sent it Identify and one question, nothing else" ssd_asked
step "it has not suffered from being asked" ssd_unharmed
step "the kernel has nothing to say about it" kernel_is_content
