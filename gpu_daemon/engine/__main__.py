"""`python -m gpu_daemon.engine START`: the engine process, started by its daemon and by nobody else."""

import sys

from gpu_daemon.engine.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
