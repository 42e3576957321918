#!/bin/bash
# Become systemd as PID 1 of namespaces of its own; used by machine.py.
#
#   boot.sh FOLDER PYTHON PACKAGES
#
# FOLDER    has `files/`, which is laid over the root, and takes the overlay
# PYTHON    the interpreter's prefix, seen as /opt/assistantd/python
# PACKAGES  its site-packages, seen as /opt/assistantd/packages
#
# The root is an overlay of this machine's, in memory: nothing that happens inside stays. Control
# groups are those of a group of its own, so that it can do to them what it likes.
set -euo pipefail
folder=$1 python=$2 packages=$3 group=${1##*/}

if [ "${4:-}" != inside ]; then
  # a group in each hierarchy, whose root this will be
  while read -r _ mounted type _; do
    case $type in cgroup | cgroup2) ;; *) continue ;; esac
    mkdir -p "$mounted/$group"
    # a new group of cpuset has neither processors nor memory
    for file in cpuset.cpus cpuset.mems; do
      [ ! -e "$mounted/$group/$file" ] || cat "$mounted/$file" > "$mounted/$group/$file"
    done
    echo $$ > "$mounted/$group/cgroup.procs"
  done < <(sed 's/^/x /' /proc/self/mounts | awk '{print $1, $3, $4}')
  exec unshare --pid --fork --kill-child --mount --uts --ipc --cgroup --propagation private \
    bash "$0" "$folder" "$python" "$packages" inside
fi

mount -t tmpfs tmpfs "$folder/overlay"
cd "$folder/overlay"
mkdir upper work root
# what this machine starts by itself is not started here
mkdir -p upper/etc/systemd
cp -a "$folder/files/." upper/
mount -t overlay overlay -o "lowerdir=/,upperdir=upper,workdir=work" root
cd root
find etc/systemd/system -mindepth 1 -maxdepth 1 -exec rm -r {} +
for unit in systemd-sysctl systemd-modules-load systemd-remount-fs systemd-update-utmp; do
  ln -s /dev/null "etc/systemd/system/$unit.service"  # the kernel is this machine's
done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
  read -r name major minor <<< "$device"
  mknod -m 666 "dev/$name" c "$major" "$minor"
done
ln -s /proc/self/fd dev/fd

if grep -q ' /sys/fs/cgroup cgroup2 ' /proc/self/mounts; then
  mount -t cgroup2 cgroup2 sys/fs/cgroup
else
  mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
  while IFS=: read -r _ controllers _; do
    case $controllers in
      "") name=unified kind=cgroup2 options=() ;;
      name=*) name=${controllers#name=} kind=cgroup options=(-o "none,$controllers") ;;
      *) name=$controllers kind=cgroup options=(-o "$controllers") ;;
    esac
    mkdir "sys/fs/cgroup/$name"
    mount -t "$kind" "${options[@]}" "$kind" "sys/fs/cgroup/$name"
  done < /proc/self/cgroup
fi

mkdir -p opt/assistantd/python opt/assistantd/packages mnt
mount --bind "$python" opt/assistantd/python
mount --bind "$packages" opt/assistantd/packages
mount --make-rprivate /
pivot_root . mnt
cd /
umount -l /mnt
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  ${NOTIFY_SOCKET:+NOTIFY_SOCKET="$NOTIFY_SOCKET"} \
  /lib/systemd/systemd --system --unit=basic.target --log-target=journal < /dev/null
