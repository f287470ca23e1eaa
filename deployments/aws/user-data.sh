#!/bin/bash
# First boot of a node. No secrets: run and store come from the instance's tags, credentials from
# its role. Whatever fails here ends the node, which its shutdown behaviour then terminates.
set -euo pipefail
trap 'shutdown -h now' ERR

# Local NVMe, where the type has it, holds the weights; otherwise the root volume does.
mkdir -p /var/cache/shunt
disk=$(lsblk -dpno NAME,MODEL | awk '/Instance Storage/ {print $1; exit}')
if [ -n "$disk" ]; then
  mkfs.ext4 -q -E nodiscard "$disk"
  mount -o noatime "$disk" /var/cache/shunt
fi
chown shunt:shunt /var/cache/shunt

systemctl enable --now shunt-deadline.timer shunt-worker.service
