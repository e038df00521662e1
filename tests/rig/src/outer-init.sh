#!/bin/sh
# The first process of the rig's outer machine. It loads the drivers, mounts the host's root below a scratch layer, runs
# the command of the run directory in it, and leaves the exit code in the run directory.

export PATH=/bin

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

for module in /modules/*.ko; do
	insmod "$module" || echo "rig: can't load $module"
done

# Which console the command gets, and for a terminal its size: words on the kernel command line.
read -r cmdline </proc/cmdline
for word in $cmdline; do
	case $word in
	rig.io=*) io=${word#*=} ;;
	rig.rows=*) rows=${word#*=} ;;
	rig.cols=*) cols=${word#*=} ;;
	esac
done

options=trans=virtio,version=9p2000.L,msize=1048576
mkdir -p /run_dir /host /scratch
mount -t 9p -o $options run_dir /run_dir || reboot -f
fail() {
	echo "rig: $1"
	echo "$1" >/run_dir/failed
	reboot -f
}
echo setup >/run_dir/stage

mount -t 9p -o "ro,cache=loose,$options" host /host || fail "can't mount the host's root over 9p"
mount -t tmpfs -o size=50% scratch /scratch
mkdir /scratch/root /scratch/upper /scratch/work
root=/scratch/root
mount -t overlay -o lowerdir=/host,upperdir=/scratch/upper,workdir=/scratch/work root $root ||
	fail "can't lay a scratch layer over the host's root"

mkdir -p /dev/pts /dev/shm
for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
	ln -sf "${link#*:}" "/dev/${link%%:*}"
done
# Who may open devices is usually set by udev: /dev/net/tun is for everybody, the others are for the group kvm, here 36.
for device in kvm vhost-net vhost-vsock; do
	[ -e /dev/$device ] && chown 0:36 /dev/$device && chmod 660 /dev/$device
done
[ -e /dev/net/tun ] && chmod 666 /dev/net/tun
mount -t proc proc $root/proc
mount -t sysfs sys $root/sys
# Benchmarks count the exits of KVM.
mount -t tracefs trace $root/sys/kernel/tracing
mount -o bind /dev $root/dev
mount -t devpts -o ptmxmode=666 pts $root/dev/pts
mount -t tmpfs shm $root/dev/shm
mount -t tmpfs run $root/run
mkdir $root/run/rig
mount -o bind /run_dir $root/run/rig
if [ -e /run_dir/has_results ]; then
	mkdir $root/run/results
	mount -t 9p -o $options results $root/run/results || fail "can't mount the results directory over 9p"
fi
ip link set lo up
hostname rig
# Not just a chroot, in which an ordinary user can't create a user namespace: the machine's root. What follows still has the
# initramfs as its own.
cd $root && mount -o move . / || fail "can't make the host's root the machine's"

# Waits until a condition holds: devices appear a little after their driver.
await() {
	local tries=0
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || fail "no $*"
		sleep 0.05
	done
}
# Sets $port to the device of the virtio port with a name.
find_port() {
	local entry name
	for entry in /sys/class/virtio-ports/*; do
		read -r name <"$entry/name" && [ "$name" = "$1" ] && port=/dev/${entry##*/} && return 0
	done
	return 1
}
run_command() {
	echo command >/run_dir/stage
	"$@" chroot . /bin/sh /run/rig/command
}
# Leaves the exit code for the host, which looks at it when the machine has gone.
finish() {
	echo "$1" >/run_dir/code.part
	mv /run_dir/code.part /run_dir/code
}

case $io in
terminal)
	await stty -F /dev/hvc0 rows "$rows" cols "$cols"
	# Follows the size of the person's terminal, which the host writes to a file.
	while sleep 1; do
		read -r wanted 2>/dev/null </run_dir/size && [ "$wanted" != "$size" ] && size=$wanted &&
			stty -F /dev/hvc0 rows "${size% *}" cols "${size#* }"
	done &
	run_command setsid -c </dev/hvc0 >/dev/hvc0 2>&1
	finish $?
	;;
stream)
	# Through pipes, as a command that is started from a program has them. The ports themselves can be opened only once,
	# and a named pipe can't be opened again by /dev/stdin once its writer has gone.
	await find_port rig.out
	out=$port
	run_and_finish() {
		run_command 2>&1
		finish $?
		[ -s /feeder ] && kill "$(cat /feeder)"
		# What the command left running may hold the pipe open for ever.
		(sleep 2 && reboot -f) </dev/null >/dev/null 2>&1 &
	}
	if [ -e /run_dir/has_stdin ]; then
		await find_port rig.in
		sh -c 'echo $$ >/feeder && exec cat "$0"' "$port" | run_and_finish | cat >"$out"
	else
		run_and_finish </dev/null | cat >"$out"
	fi
	;;
*) fail "no console chosen" ;;
esac

reboot -f
