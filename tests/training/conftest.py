"""What a training begins with: the tokenizers, trained once for all tests."""

from pathlib import Path

import pytest

from training.tokenizers import train_tokenizers

SEED = 20261123  # of `python -m training`


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("genserve-shapes"))
    train_tokenizers(folder, SEED)
    return folder
