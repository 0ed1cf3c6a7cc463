"""`python -m gpu_daemon.engine.probe`: imports what drawing needs, and prints as one line of JSON how that went.

For a diagnosis, which itself never imports torch. It takes no GPU memory.
"""

import importlib
import json
import os
import sys
from importlib import metadata

from gpu_daemon.engine.flux import ENVIRONMENT

MODULES = {  # by the name of the package that brings them
    "numpy": "numpy",
    "pillow": "PIL.Image",
    "torch": "torch",
    "safetensors": "safetensors.torch",
    "sentencepiece": "sentencepiece",
    "protobuf": "google.protobuf",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "diffusers": "diffusers",
    "psutil": "psutil",
}
ERROR_CHARS_MAX = 300


def main() -> None:
    """Print versions, failures, and what torch can use."""
    os.environ.update(ENVIRONMENT)
    failed = {}
    for package, module in MODULES.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a broken library raises
            failed[package] = f"{type(error).__name__}: {error}"[:ERROR_CHARS_MAX]
    versions = {package: metadata.version(package) for package in MODULES if package not in failed}
    arches: list[str] = []
    available = False
    if "torch" not in failed:
        import torch  # noqa: PLC0415  # may be broken: see above

        available, arches = torch.cuda.is_available(), torch.cuda.get_arch_list()
    told = {"failed": failed, "cuda_available": available, "arches": arches}
    sys.stdout.write(json.dumps(told | {name: versions.get(name, "") for name in MODULES}) + "\n")


if __name__ == "__main__":
    main()
