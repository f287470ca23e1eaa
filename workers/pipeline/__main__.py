"""`python -m workers.pipeline SPEC`: one node's part of a pipeline, for one launch of its head.

SPEC is the JSON of a `FollowerSpec`. Ends with 0 where the head stopped the engine, 1 where
something was lost or the part was refused. With `--watch-parent` it ends when stdin closes.
"""

import argparse
import logging
import os
import sys
import threading
from collections.abc import Sequence

from shunt.errors import ShuntError
from workers.engine.config import ENGINE_ENVIRONMENT
from workers.pipeline.follower_spec import FollowerSpec

EXIT_REFUSED = 1

log = logging.getLogger("workers.pipeline")


def main(argv: Sequence[str]) -> int:
    """Follow; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.pipeline", description=__doc__)
    parser.add_argument("spec")
    parser.add_argument("--watch-parent", action="store_true", help="end when stdin closes")
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    if options.watch_parent:
        threading.Thread(target=_end_with_stdin, name="parent-watch", daemon=True).start()
    os.environ.update(ENGINE_ENVIRONMENT)
    # Both read the environment above as they are imported.
    from vllm.platforms import current_platform

    from workers.pipeline.follower import follow

    spec = FollowerSpec.of_json(options.spec)
    try:
        follow(
            spec.config,
            spec.stages,
            node=spec.stages.node,
            device=spec.device or current_platform.device_type,
            deadline_s=spec.deadline_s,
        )
    except ShuntError as error:
        log.error("%s: %s", type(error).__name__, error)
    return EXIT_REFUSED


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    # Its ranks get a death signal, and its janitor sees to the rest.
    os._exit(EXIT_REFUSED)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
