#!/bin/bash
# /opt/shunt/bin/worker of the image: who am I, and for which run.
set -euo pipefail
imds=http://169.254.169.254/latest
token=$(curl -sfX PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 300' "$imds/api/token")
ask() { curl -sfH "X-aws-ec2-metadata-token: $token" "$imds/meta-data/$1"; }
store=$(ask tags/instance/shunt:store)
region=$(ask placement/region) # the bucket's too: setup and docs ask for one region
export AWS_REGION=$region AWS_DEFAULT_REGION=$region
recheck=$(ask tags/instance/shunt:recheck || true) # a tag that is mostly absent
export PYTHONPATH=/opt/shunt/code
exec /opt/shunt/venv/bin/python -m workers.node \
  --store "{\"uri\": \"$store\"}" \
  --run "$(ask tags/instance/shunt:run)" \
  --node "$(ask instance-id)" \
  --slot "$(ask tags/instance/shunt:slot)" \
  --address "$(ask local-ipv4)" \
  --watch-imds ${recheck:+--recheck}
