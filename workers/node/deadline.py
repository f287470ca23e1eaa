"""`python -m workers.node.deadline`: powers the machine off once its deadline tag has passed.

One look, run by a timer every minute, whatever the worker and the run do. A metadata service that
fails decides nothing: the deadline that was read last is kept in a file and goes on to hold. A node
that never read one ends after a day.
"""

import argparse
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from shunt.aws import tags
from shunt.aws.imds import IMDS_URL, Imds

LONGEST_UP_S = 86_400.0
"""Of a node that cannot learn its deadline."""
KEPT = Path("/run/shunt/expires-at")

log = logging.getLogger("workers.node.deadline")


def main(argv: Sequence[str]) -> int:
    """Look once; returns 0, also where the machine is powered off."""
    parser = argparse.ArgumentParser(prog="python -m workers.node.deadline", description=__doc__)
    parser.add_argument("--imds-url", default=IMDS_URL, help="where EC2's metadata are served")
    parser.add_argument("--kept", type=Path, default=KEPT, help="file of the last known deadline")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    expires_at = last_known_deadline(Imds(options.imds_url), options.kept)
    reason = reason_to_end(expires_at, now=datetime.now(UTC), up_s=time.clock_gettime(_UPTIME))
    if reason:
        log.warning("powering off: %s", reason)
        subprocess.run(["systemctl", "poweroff"], check=True)
    return 0


_UPTIME = time.CLOCK_BOOTTIME


def last_known_deadline(imds: Imds, kept: Path) -> datetime | None:
    """As the tag says now, else as it said when it was last read; None where it never was."""
    try:
        told = imds.tag(tags.EXPIRES_AT)
    except OSError as error:
        log.warning("instance metadata failed error=%s", error)
        told = None
    if (expires_at := _instant(told)) is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(expires_at.isoformat())  # this timer alone writes it
        return expires_at
    return _instant(kept.read_text()) if kept.exists() else None


def reason_to_end(expires_at: datetime | None, *, now: datetime, up_s: float) -> str:
    """Why the machine has to end now; empty where it need not."""
    if expires_at is None:
        return "" if up_s < LONGEST_UP_S else "no deadline could be read for a day"
    return "" if now < expires_at else f"the deadline {expires_at.isoformat()} has passed"


def _instant(text: str | None) -> datetime | None:
    """None for what is no instant with a zone: a guess could end a healthy node."""
    try:
        found = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
