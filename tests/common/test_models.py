"""Which size is drawn for the size asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import GenServeError
from common.models import ModelCard

FLUX = ModelCard(name="flux1-dev")
TINY = ModelCard(
    name="tiny", width=128, height=128, side_min=64, side_max=256, pixels_max=65_536, enlarges=True,
    enlarged_side_max=2048,
)  # fmt: skip


@pytest.mark.parametrize(
    ("card", "asked", "drawn"),
    [
        (FLUX, (0, 0), (1024, 1024)),
        (FLUX, (1536, 1024), (1536, 1024)),
        (TINY, (0, 0), (128, 128)),
        (TINY, (64, 256), (64, 256)),
        (TINY, (1024, 1024), (128, 128)),
        (TINY, (1536, 1024), (144, 96)),
        (TINY, (1024, 1536), (96, 144)),
        (TINY, (1792, 1024), (176, 96)),
        (TINY, (1000, 1000), (128, 128)),
        (TINY, (250, 250), (128, 128)),
        (TINY, (2048, 512), (256, 64)),
    ],
)
def test_drawn_size(card: ModelCard, asked: tuple[int, int], drawn: tuple[int, int]) -> None:
    assert card.drawn_size(*asked) == drawn


@pytest.mark.parametrize(
    ("card", "asked", "nearest"),
    [
        (FLUX, (1000, 1000), "1008x1008"),
        (FLUX, (4096, 4096), "2048x2048"),
        (FLUX, (1, 1), "256x256"),
        (TINY, (100, 100), "96x96"),
        (TINY, (4096, 4096), "2048x2048"),
        (TINY, (8192, 4096), "2048x1024"),
        (TINY, (8192, 64), "256x64"),
        (TINY, (2000, 64), "256x64"),
    ],
)
def test_a_size_that_cannot_be_is_refused_with_the_nearest(
    card: ModelCard, asked: tuple[int, int], nearest: str
) -> None:
    with pytest.raises(GenServeError) as caught:
        card.drawn_size(*asked)
    assert caught.value.code == "invalid_request"
    assert caught.value.param == "size"
    assert f"the nearest size it draws is {nearest}" in caught.value.message


@pytest.mark.parametrize("asked", [(1024, 0), (0, 1024)])
def test_one_side_alone_is_no_size(asked: tuple[int, int]) -> None:
    with pytest.raises(GenServeError, match="both"):
        FLUX.drawn_size(*asked)


@given(st.integers(1, 16384), st.integers(1, 16384), st.sampled_from([FLUX, TINY]))
def test_every_size_is_drawn_in_bounds_or_refused_with_one_that_is(width: int, height: int, card: ModelCard) -> None:
    try:
        drawn = card.drawn_size(width, height)
    except GenServeError as error:
        near = card.nearest(width, height)
        said = f"the nearest size it draws is {near[0]}x{near[1]} "
        if said not in error.message:
            raise
        assert card.is_native(*card.drawn_size(*near))
        return
    assert card.is_native(*drawn)
    assert drawn == (width, height) or (drawn[0] <= width and drawn[1] <= height)
