#!/bin/busybox sh
# The first process of a guest: runs the lines of /steps (name, program, arguments) and ends the machine.
# The tests' output goes to the second serial line; the first is the kernel's.
b=/bin/busybox
export PATH=/usr/sbin:/usr/bin HOME=/root RUST_BACKTRACE=0
export WEIR_EBPF_OBJECT=/job/weir.o WEIR_BIN=/job/weir
# Seconds: emulated, a verification alone takes several, and the machine may be busy.
export WEIR_TEST_PATIENCE=300
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
$b mount -t tmpfs tmpfs /run
$b mount -t tmpfs tmpfs /tmp
# `ip netns add` wants it so.
$b mount --make-rshared /
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t tracefs tracefs /sys/kernel/tracing
$b ln -s /proc/self/fd /dev/fd
$b hostname weir-kernel
ip link set lo up
ulimit -l unlimited
# Else the line would echo, and end lines its own way.
$b stty -F /dev/ttyS1 raw -echo

now() { read -r seconds _ < /proc/uptime; echo "${seconds%.*}${seconds#*.}"; }

(
    while read -r name program; do
        echo "@weir begin $name"
        start=$(now)
        # Split at spaces on purpose.
        $program 2>&1 < /dev/null
        status=$?
        spent=$(($(now) - start))
        echo "@weir end $status $((spent / 100)).$((spent % 100 / 10))$((spent % 10))"
    done < /steps
) > /dev/ttyS1
$b reboot -f
