#!/bin/bash
# Try the Debian package in a Debian of its own, with systemd as its PID 1: install, ask, upgrade,
# refuse a downgrade, remove, purge.
#
#   sudo tests/deb.sh [bookworm|trixie]
#
# The Debian (some 300 MB) is made by debootstrap and kept in $ASSISTANTD_DEB_ROOT, or
# ~/.cache/assistantd-deb, and used again; what is done here is done in an overlay and forgotten.
# $ASSISTANTD_TEST_MODEL is the model, or what `make test` has left in .model-cache/. Needs a
# Debian or Ubuntu machine and root; takes some ten minutes, half of them for packing. Packages are
# taken from $ASSISTANTD_DEBS, and put there for the next time, if that is set. With a folder of all
# packages that the release's Python needs in $ASSISTANTD_OFFLINE (pip download), systemd/packaging/install.sh
# is tried there, too.
set -euo pipefail

if [ "${1:-}" = inside ]; then # of the namespaces: become that machine's PID 1
  cd "$2"
  mount -t proc proc proc
  mount --bind proc/sys proc/sys
  mount -o remount,ro,bind proc/sys
  mount -t sysfs -o ro sysfs sys
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs -o mode=755 tmpfs dev
  mkdir dev/pts dev/shm
  mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
  mount -t tmpfs -o mode=1777 tmpfs dev/shm
  ln -s pts/ptmx dev/ptmx
  ln -s /proc/self/fd dev/fd
  for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    read -r name major minor <<<"$device"
    mknod -m 666 "dev/$name" c "$major" "$minor"
  done
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
    done </proc/self/cgroup
  fi
  mount --make-rprivate /
  pivot_root . mnt
  cd /
  umount -l /mnt
  exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target </dev/null
fi

repository=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$repository/.venv/bin/python}
release=${1:-bookworm}
arch=$(dpkg --print-architecture)
base=${ASSISTANTD_DEB_ROOT:-$HOME/.cache/assistantd-deb}
model=${ASSISTANTD_TEST_MODEL:-$repository/.model-cache/smollm2.gguf}
[ -e "$model" ] || { echo "there is no model at $model: run \`make test\` first" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "tests/deb.sh needs root. Try: sudo $0" >&2; exit 2; }

# the mirror is where this machine has its own packages from
mirror=$(find /etc/apt \( -name '*.list' -o -name '*.sources' \) -print0 |
  xargs -0 grep -hoE '^(URIs:|deb( \[[^]]*\])?) *\S+/debian/?( |$)' | grep -oE '[a-z]+://\S+' | head -1)
command -v debootstrap >/dev/null || apt-get install -y -qq debootstrap >/dev/null
if [ ! -e "$base/$release/done" ]; then
  rm -rf "${base:?}/$release"
  mkdir -p "$base"
  debootstrap --variant=minbase --include=python3,python3-venv,systemd,systemd-sysv,dbus "$release" \
    "$base/$release" "$mirror" >"$base/$release.log"
  touch "$base/$release/done"
fi

# --- packages of this version, and of one that comes after it ------------------------------------
work=$(mktemp -d /tmp/assistantd-deb-XXXXXX)
inner='' groups=()
cleanup() {
  status=$?
  # PID 1 does not end when `unshare` does
  if [ -n "$inner" ] && kill -0 "$inner" 2>/dev/null; then
    kill -9 "$inner"
    wait || true
  fi
  for place in "${groups[@]}"; do
    find "$place" -depth -type d -exec rmdir {} \; 2>/dev/null || true # what just ended lingers
  done
  if mountpoint -q "$work/root"; then umount --recursive --lazy "$work/root"; fi
  if mountpoint -q "$work"; then umount --lazy "$work"; fi
  rm -rf "$work"
  exit $status
}
trap cleanup EXIT
mount -t tmpfs tmpfs "$work" # an overlay cannot lie on an overlay, as /tmp does in containers
mkdir "$work"/{upper,over,root,next,debs}

version=$("$python" -c 'import sys, tomllib
print(tomllib.load(open(sys.argv[1], "rb"))["project"]["version"])' "$repository/pyproject.toml")
next=$version.post1
cp -r "$repository"/{assistantd,clients,engine,systemd} "$work/next"
cp "$repository"/{CHANGELOG.md,LICENSE,MANIFEST.in,README.md,pyproject.toml} "$work/next"
sed -i "s/^version = .*/version = \"$next\"/" "$work/next/pyproject.toml"
export PYTHONDONTWRITEBYTECODE=1 SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date +%s)}
[ -z "${ASSISTANTD_DEBS:-}" ] || cp "$ASSISTANTD_DEBS"/*.deb "$work/debs" 2>/dev/null || true
for source in "$repository" "$work/next"; do
  if [ -n "$(ls "$work/debs")" ]; then break; fi
  "$python" "$repository/systemd/packaging/dist.py" --source "$source" --output "$work/wheels"
done
for wheel in "$work"/wheels/*.whl; do
  [ -e "$wheel" ] || break
  "$python" "$repository/systemd/packaging/deb.py" "$wheel" --arch "$arch" --release "$release" \
    --output "$work/debs" --level 1
done
[ -z "${ASSISTANTD_DEBS:-}" ] || cp -n "$work"/debs/*.deb "$ASSISTANTD_DEBS"
suffix=$(basename "$work"/debs/assistantd_"$next"+*_"$arch".deb "_$arch.deb")
suffix=${suffix#*+}
next_version=$next
now=assistantd_$version+${suffix}_$arch.deb next=assistantd_$next+${suffix}_$arch.deb

# for install.sh: the same wheels, one whose daemon does not start, and all that they need
with_installer=
if [ -d "${ASSISTANTD_OFFLINE:-}" ]; then
  with_installer=yes broken_version=$version.post2
  mkdir "$work/broken"
  cp -r "$work/next"/* "$work/broken"
  sed -i "s/^version = .*/version = \"$broken_version\"/" "$work/broken/pyproject.toml"
  echo 'raise SystemExit("it does not start")' >"$work/broken/assistantd/daemon.py"
  for source in "$repository" "$work/next" "$work/broken"; do
    "$python" "$repository/systemd/packaging/dist.py" --source "$source" --output "$work/wheels"
  done
  wheel_now=assistantd-$version-py3-none-any.whl wheel_next=assistantd-$next_version-py3-none-any.whl
  wheel_broken=assistantd-$broken_version-py3-none-any.whl
fi

# --- the machine ---------------------------------------------------------------------------------
root=$work/root
mount -t overlay overlay -o "lowerdir=$base/$release,upperdir=$work/upper,workdir=$work/over" "$root"
mkdir -p "$root/debs"
cp "$work"/debs/* "$root/debs"
cp "$model" "$root/model.gguf"
if [ -n "$with_installer" ]; then
  mkdir "$root/installer"
  cp "$repository/systemd/packaging/install.sh" "$work"/wheels/*.whl "$root/installer"
  cp -r "$ASSISTANTD_OFFLINE" "$root/installer/packages"
fi
# control groups of its own, to which it can do what it likes
group=${work##*/}
while read -r mounted; do
  mkdir -p "$mounted/$group"
  for file in cpuset.cpus cpuset.mems; do # a new group of cpuset has neither
    [ ! -e "$mounted/$group/$file" ] || cat "$mounted/$file" >"$mounted/$group/$file"
  done
  groups+=("$mounted/$group")
done < <(awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/self/mounts)
(
  for place in "${groups[@]}"; do echo $BASHPID >"$place/cgroup.procs"; done
  exec unshare --pid --fork --mount --uts --ipc --cgroup --net --propagation private \
    bash "$repository/tests/deb.sh" inside "$root"
) >"$work/boot.log" 2>&1 &
outer=$!
for _ in $(seq 300); do
  inner=$(pgrep -P $outer || true)
  [ -n "$inner" ] && [ -S "/proc/$inner/root/run/systemd/private" ] && break
  sleep 0.1
done
within() { # what is said at a terminal of that machine
  # shellcheck disable=SC2016
  nsenter --target "$inner" --mount --pid --uts --ipc --cgroup --net --root -- env -i \
    PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    sh -c 'cd / && exec "$@"' sh "$@"
}
asked() { within assistant ask --temperature 0 --session trip "$@"; }
passed=0
check() { # a sentence, and the command that is true of it
  local sentence=$1
  shift
  if "$@"; then
    echo "  ok: $sentence"
    passed=$((passed + 1))
  else
    echo "  NOT so: $sentence" >&2
    within journalctl --no-pager -n 60 >&2 || true
    exit 1
  fi
}
fails() { ! "$@"; }
gone() { ! within test -e "$1"; }
runs() { within systemctl --quiet is-active "$@"; }
says() { [[ $(within "${@:2}" 2>&1) == *"$1"* ]]; }
listed() { (cd "$root" && find . -xdev | sort); }
within systemctl is-system-running --wait || true # "degraded" is normal without a network
listed >"$work/before"

echo "== install $now"
within dpkg -i "/debs/$now"
check "the daemon runs" runs assistantd.service
check "the commands tell their version" says "$version" assistant --version
check "nothing that it needs is missing" within /opt/assistantd/bin/python -m pip check
within sh -c 'install -o assistantd -g assistantd -d /var/lib/assistantd/models &&
  install -o assistantd -g assistantd -m 600 /model.gguf /var/lib/assistantd/models/smollm2.gguf'
within assistant models load smollm2
check "it answers" says Paris assistant ask --temperature 0 --session trip \
  "What is the capital of France?"
pid=$(within systemctl show -P MainPID assistantd)

echo "== install it once more"
within dpkg -i "/debs/$now" >/dev/null 2>&1
check "the daemon was started again" test "$pid" != "$(within systemctl show -P MainPID assistantd)"
check "and runs" runs assistantd.service

echo "== an upgrade that fails while it is unpacked"
head -c 20000000 "$work/debs/$next" >"$root/debs/broken.deb"
fails within dpkg -i /debs/broken.deb >"$work/broken.log" 2>&1
check "the old version still answers" says Rome assistant ask --temperature 0 \
  "What is the capital of Italy?"
check "and is the old one" says "$version+" dpkg-query -W assistantd

echo "== upgrade to $next"
within dpkg -i "/debs/$next"
check "the new daemon runs" says "assistantd $next_version" assistant status
check "the conversation is there" says "capital of France" assistant sessions show trip
check "and goes on" within assistant ask --temperature 0 --session trip "And of Spain?"

echo "== a downgrade that could not read what the newer version has written"
within python3 - <<'PY'
import sqlite3
db = sqlite3.connect("/var/lib/assistantd/sessions.db")
(version,) = db.execute("PRAGMA user_version").fetchone()
db.execute(f"PRAGMA user_version = {version + 1}")
db.commit()
print(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
db.close()
PY
fails within dpkg -i "/debs/$now" >"$work/downgrade.log" 2>&1
check "is refused, and told why" grep -q "was written by a newer version" "$work/downgrade.log"
check "and the version that was there is there" says "$next_version" assistantd --version
within python3 -c 'import sqlite3
db = sqlite3.connect("/var/lib/assistantd/sessions.db")
(version,) = db.execute("PRAGMA user_version").fetchone()
db.execute(f"PRAGMA user_version = {version - 1}")
db.commit()'
within systemctl restart assistantd
check "its daemon runs" runs assistantd.service
within dpkg -i "/debs/$now" >/dev/null 2>&1
check "a downgrade of the same schema works" says "capital of France" assistant sessions show trip

echo "== remove"
within dpkg -r assistantd
check "the program is gone" gone /opt/assistantd
check "the units are gone" gone /usr/lib/systemd/system/assistantd.service
check "the data is there" within test -s /var/lib/assistantd/sessions.db
within dpkg -i "/debs/$next" >/dev/null 2>&1
check "installed again, the conversation is there" says "capital of France" \
  assistant sessions show trip

echo "== purge, with nobody there to be asked"
within dpkg -P assistantd
listed >"$work/after"
sed -i -e '/^\.\/debs/d' "$work"/before "$work"/after
left=$(comm -13 "$work/before" "$work/after" | grep -v '^./var/\(log/journal\|lib/dpkg\|tmp/systemd\)' |
  grep -v '^\./\(var/lib/systemd\|var/lib/private\|var/cache/debconf\|var/cache/private\|tmp/\)' || true)
echo "$left"
check "nothing is left but the user's data" test -z \
  "$(echo "$left" | grep -v '^\./var/lib/assistantd\(/\|$\)')"
check "conversations are kept" within test -s /var/lib/assistantd/sessions.db

echo "== purge, with yes for an answer"
within dpkg -i "/debs/$next" >/dev/null 2>&1
within dpkg -r assistantd >/dev/null 2>&1
within sh -c 'DEBIAN_FRONTEND=editor EDITOR="sed -i s,^assistantd/delete-data=.*,assistantd/delete-data=\\\"yes\\\"," VISUAL= dpkg -P assistantd' || true
check "the data are gone" gone /var/lib/assistantd
check "and so are its users" test -z "$(within getent passwd assistantd assistantd-kernels)"
# --- install.sh, with the same wheels and a folder of packages ------------------------------------
[ -n "$with_installer" ] || { echo "$passed passed, 0 failed"; exit; }
installer() { within sh /installer/install.sh --from /installer/packages "$@"; }
current() { within readlink /opt/assistantd/current; }
within sh -c 'install -o root -g root -d /var/lib/assistantd/models &&
  cp /model.gguf /var/lib/assistantd/models/smollm2.gguf'

echo "== install.sh"
check "wants root" fails within setpriv --reuid=65534 --clear-groups sh /installer/install.sh
check "refuses 32 bits" fails within setarch linux32 sh /installer/install.sh
installer "/installer/$wheel_now"
check "the daemon runs" runs assistantd.service
within sh -c 'chown -R assistantd: /var/lib/assistantd'
within assistant models load smollm2
check "it answers" says Paris assistant ask --temperature 0 --session trip \
  "What is the capital of France?"
before=$(current)

echo "== install.sh: a version that does not start"
check "is told" fails installer "/installer/$wheel_broken"
check "the old one is current" test "$before" = "$(current)"
check "and answers" says Rome assistant ask --temperature 0 "What is the capital of Italy?"
check "nothing of the other is left" test 1 = "$(within ls /opt/assistantd/versions | wc -l)"

echo "== install.sh: broken off while packages are installed"
# shellcheck disable=SC2016
within sh -c 'set -m; sh /installer/install.sh --from /installer/packages "$1" & pid=$!
  until [ -d /opt/assistantd/versions/2/lib ]; do sleep 0.1; done
  kill -9 -- -$pid; wait' sh "/installer/$wheel_next" || true
check "the old version still answers" says Rome assistant ask --temperature 0 \
  "What is the capital of Italy?"
installer "/installer/$wheel_next"
check "done again, the new one runs" says "assistantd $next_version" assistant status
check "the conversation is there" says "capital of France" assistant sessions show trip
check "one version is left" test 1 = "$(within ls /opt/assistantd/versions | wc -l)"

echo "== install.sh: removed"
check "is removed" within sh /installer/install.sh --uninstall
check "the program is gone" gone /opt/assistantd
check "its links are gone" gone /usr/local/bin/assistant
check "the units are gone" gone /etc/systemd/system/assistantd.service
check "the data is kept" within test -s /var/lib/assistantd/sessions.db
check "with nobody to say yes, nothing is deleted" fails \
  within sh /installer/install.sh --uninstall --purge
check "the data is still there" within test -s /var/lib/assistantd/sessions.db
within sh /installer/install.sh --uninstall --purge --yes
check "and after a yes it is gone" gone /var/lib/assistantd
check "so are its users" test -z "$(within getent passwd assistantd assistantd-kernels)"
echo "$passed passed, 0 failed"
