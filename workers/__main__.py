"""`python -m workers`: one worker process, from its command line to its exit code."""

import logging
import sys
from collections.abc import Sequence

from workers.process import options_of, work


def main(argv: Sequence[str]) -> int:
    """Run one worker until its run is done or it is told to go; returns the exit code."""
    options = options_of(argv)
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    return work(options).code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
