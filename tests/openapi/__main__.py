"""`python -m tests.openapi --examples 300`: the long run; `make fuzz-http` calls it."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.openapi.campaign import run
from tests.service import running


def main() -> int:
    """Run it against a service of its own; 0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=300, help="of each operation and phase")
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), "--engine", "noop", "--gpus", "cpu") as service:
        clean, report = run(
            service, examples=args.examples, phases="examples,coverage,fuzzing,stateful", seed=args.seed
        )
    sys.stdout.write(report)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
