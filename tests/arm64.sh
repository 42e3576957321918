#!/bin/bash
# Run the engine's tests on emulated ARM64 processors, in a Debian root of their own.
#
#   sudo tests/arm64.sh [CPU…]
#
# CPU  cortex-a72 (Raspberry Pi 4: no byte dot product) and cortex-a76 (Raspberry Pi 5), unless
#      given; any of `qemu-aarch64-static -cpu help`
#
# The real model is $ASSISTANTD_TEST_MODEL, or what `make test` has left in .model-cache/.
# $PYTEST_ADDOPTS is passed on, as in PYTEST_ADDOPTS="-k instructions". Compiling all kernels under
# emulation takes half an hour or more for each CPU. The root (about 1 GB) is kept in
# $ASSISTANTD_ARM64_ROOT, or ~/.cache/assistantd-arm64, and used again.
#
# Needs a Debian or Ubuntu machine, root (chroot, binfmt_misc, bind mounts), and Python 3.11 or
# later with pip: packages are fetched by this machine's pip, with its configuration.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
root=${ASSISTANTD_ARM64_ROOT:-$HOME/.cache/assistantd-arm64}
python=${PYTHON:-python3}
cpus=("$@")
[ ${#cpus[@]} -gt 0 ] || cpus=(cortex-a72 cortex-a76)

if [ "$(id -u)" != 0 ]; then
  echo "tests/arm64.sh needs root: chroot and bind mounts. Try: sudo $0" >&2
  exit 2
fi
if ! { command -v debootstrap && command -v qemu-aarch64-static; } >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq qemu-user-static debootstrap
fi

# the kernel hands ARM64 programs to qemu, also inside the root (F: opened now)
handlers=/proc/sys/fs/binfmt_misc
[ -e $handlers/register ] || mount -t binfmt_misc binfmt_misc $handlers
if [ ! -e $handlers/qemu-aarch64 ]; then
  magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  echo ":qemu-aarch64:M::$magic:$mask:/usr/bin/qemu-aarch64-static:OF" > $handlers/register
fi

if [ ! -e "$root/done" ]; then
  mkdir -p "$root"
  debootstrap --arch=arm64 --variant=minbase --include=python3 bookworm "$root/debian"
  touch "$root/done"
fi
# what pyproject.toml asks for, as wheels for ARM64
mapfile -t packages < <("$python" - "$repository/pyproject.toml" <<'PY'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
lint = ("ruff", "mypy")
dev = [p for p in project["optional-dependencies"]["dev"] if not p.startswith(lint)]
print(*project["dependencies"], *dev, sep="\n")
PY
)
platforms=(manylinux{2014,_2_17,_2_28,_2_31,_2_34}_aarch64)
"$python" -m pip install --quiet --no-compile --upgrade --only-binary=:all: \
  --python-version 3.11 --implementation cp "${platforms[@]/#/--platform=}" \
  --target "$root/site" "${packages[@]}"
# and the project's own metadata, which says its version; its code is read from /src
"$python" -m pip install --quiet --no-compile --upgrade --no-deps --target "$root/site" "$repository"

mkdir -p "$root/debian"/{site,src,proc,dev}
cleanup() {
  for place in site src proc dev; do
    if mountpoint -q "$root/debian/$place"; then umount "$root/debian/$place"; fi
  done
}
trap cleanup EXIT
mount --bind "$root/site" "$root/debian/site"
mount --bind "$repository" "$root/debian/src"
mount -t proc proc "$root/debian/proc"
mount --bind /dev "$root/debian/dev"

model=
if [ -n "${ASSISTANTD_TEST_MODEL:-}" ]; then
  cp "$ASSISTANTD_TEST_MODEL" "$root/debian/model.gguf"
  model=ASSISTANTD_TEST_MODEL=/model.gguf
fi

failed=0
for cpu in "${cpus[@]}"; do
  echo "== $cpu"
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 QEMU_CPU="$cpu" PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/src:/site XDG_CACHE_HOME=/tmp/cache PYTEST_ADDOPTS="${PYTEST_ADDOPTS:-}" $model \
    chroot "$root/debian" sh -c \
    'cd /src && exec python3 -m pytest -p no:cacheprovider -o timeout=0 tests/engine' || failed=1
done
exit $failed
