#!/bin/bash
# First boot of a node. No secrets: run and store come from the instance's tags, credentials from
# its role. Whatever fails here ends the node, which its shutdown behaviour then terminates.
# Setup puts SHUNT_BUNDLE and SHUNT_BUNDLE_SHA256 above for images without the worker environment.
set -euo pipefail
trap 'shutdown -h now' ERR
shutdown -h +60 # a first boot that hangs ends too; called off below
home=/opt/shunt
cache=/var/cache/shunt
id shunt >/dev/null 2>&1 || useradd --system --home-dir "$home" --shell /usr/sbin/nologin shunt

# Local NVMe, where the type has it, holds the weights; otherwise the root volume does. Several
# disks become one without redundancy: weights can be fetched again.
mkdir -p "$cache"
mapfile -t disks < <(lsblk -dpno NAME,MODEL | awk '/Instance Storage/ {print $1}')
if [ "${#disks[@]}" -gt 0 ]; then
  disk=${disks[0]}
  if [ "${#disks[@]}" -gt 1 ] && command -v mdadm >/dev/null; then
    disk=/dev/md0
    mdadm --create "$disk" --run --level=0 --raid-devices="${#disks[@]}" "${disks[@]}"
  fi
  mkfs.ext4 -q -E nodiscard "$disk"
  mount -o noatime "$disk" "$cache"
fi
chown shunt:shunt "$cache"

# Triton compiles a launcher against Python.h at the first kernel: it needs a compiler and headers.
# An image without them gets them here; a prepared one has them.
prepared() { command -v gcc && command -v python3.11 && [ -e "$(include_folder)/Python.h" ]; }
include_folder() { python3.11 -c 'import sysconfig; print(sysconfig.get_paths()["include"])'; }
if ! prepared >/dev/null 2>&1; then
  if command -v dnf >/dev/null; then
    dnf install -yq python3.11 python3.11-devel gcc
  else
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -yq python3.11-venv python3.11-dev gcc
  fi
fi

# Locked install, where the image has no worker environment: exact versions, each with its hash.
if [ ! -x "$home/venv/bin/python" ]; then
  : "${SHUNT_BUNDLE:?the image has no $home/venv, and setup named no bundle}"
  mkdir -p "$home/code"
  bundle=$(mktemp)
  aws s3 cp --only-show-errors "$SHUNT_BUNDLE" "$bundle"
  sha256sum --check --quiet <<<"$SHUNT_BUNDLE_SHA256  $bundle"
  tar -xzf "$bundle" -C "$home/code"
  python3.11 -m venv "$home/venv"
  # The wheels take tens of GB while they are unpacked: on the NVMe, where there is one.
  TMPDIR=$cache "$home/venv/bin/pip" install --quiet --no-cache-dir --no-deps --require-hashes \
    -r "$home/code/requirements/worker.lock"
  install -m 644 "$home"/code/deployments/aws/shunt-*.service "$home"/code/deployments/aws/*.timer \
    /etc/systemd/system/
  systemctl daemon-reload
fi

shutdown -c
systemctl enable --now shunt-deadline.timer shunt-worker.service
