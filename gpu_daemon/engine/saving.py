"""Copies of pictures in the operator's folder, under names that only the server makes.

A file appears whole or not at all. Nothing that a client wrote is ever part of a name.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from common.messages import SUFFIXES, JobOrder, Token
from gpu_daemon.engine.backend import Painting


def save_picture(folder: Path, painting: Painting, token: Token, job: JobOrder, wall_s: float) -> Path:
    """Write a copy, e.g. 20261123-180102-0a1b2c3d-seed42.png (UTC); its path. Raises OSError."""
    moment = datetime.fromtimestamp(wall_s, UTC).strftime("%Y%m%d-%H%M%S")
    path = folder / f"{moment}-{token.job_id[:8]}-seed{job.seed}.{SUFFIXES[painting.picture.format]}"
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(painting.data)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path
