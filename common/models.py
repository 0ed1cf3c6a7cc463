"""What a model is to everyone but its engine: a card. And which size is drawn for the size asked.

Pure. A daemon registers the cards of what it serves; the router admits and resolves jobs by them; the
gateway shows them.
"""

import math
from typing import Annotated

from msgspec import Meta, Struct

from common.errors import GenServeError

Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
Side = Annotated[int, Meta(ge=1, le=16384)]
FormatName = Annotated[str, Meta(max_length=16)]  # see Format in common/messages

ENLARGED_SKEW_MAX = 0.08  # how much an enlarged picture may be stretched, as |ln(shape / shape)|


class ModelCard(Struct, frozen=True, kw_only=True):
    """One model: its name, defaults and limits. Sides are pixels.

    A size is native when both sides are multiples of `side_multiple` between `side_min` and `side_max`
    and their product is at most `pixels_max`. Where `enlarges`, any other size of at least the default
    area, up to `enlarged_side_max` a side, is drawn natively in the same shape and then enlarged.
    """

    name: Name
    description: str = ""
    embedded: bool = False  # shipped inside the package
    width: Side = 1024  # default size, drawn when none is asked for
    height: Side = 1024
    side_min: Side = 256
    side_max: Side = 2048
    side_multiple: Side = 16
    pixels_max: Annotated[int, Meta(ge=1, le=2**31)] = 4_194_304
    enlarges: bool = False
    enlarged_side_max: Side = 2048
    steps: Annotated[int, Meta(ge=1, le=1000)] = 28  # default
    steps_max: Annotated[int, Meta(ge=1, le=1000)] = 100
    guidance_scale: Annotated[float, Meta(ge=0, le=100)] = 3.5  # default; meaningless where not `guided`
    guided: bool = True  # takes guidance_scale
    prompt_tokens_max: int = 512  # longer prompts are cut, with a warning
    edits: bool = False  # starts from an image, with a mask or without, where it is given one
    formats: Annotated[tuple[FormatName, ...], Meta(max_length=8)] = ("png",)  # that its engine encodes

    def is_native(self, width: int, height: int) -> bool:
        """Can exactly this size be drawn?"""
        return (
            all(self.side_min <= side <= self.side_max and side % self.side_multiple == 0 for side in (width, height))
            and width * height <= self.pixels_max
        )

    def drawn_size(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) to draw for an asked size; both 0 means the default.

        Raises GenServeError invalid_request, naming the nearest size, for one that is neither native
        nor enlarged to.
        """
        if width == 0 and height == 0:
            return self.width, self.height
        if width == 0 or height == 0:
            raise GenServeError("invalid_request", "give both width and height, or neither", param="size")
        if self.is_native(width, height):
            return width, height
        if drawn := self._enlarged_from(width, height):
            return drawn
        near = self.nearest(width, height)
        also = f", and larger ones up to {self.enlarged_side_max} a side, enlarged" if self.enlarges else ""
        raise GenServeError(
            "invalid_request",
            f"{self.name} does not draw {width}x{height}; the nearest size it draws is {near[0]}x{near[1]} "
            f"(sides of {self.side_min} to {self.side_max} pixels in steps of {self.side_multiple}, "
            f"at most {self.pixels_max} pixels in all{also})",
            param="size",
        )

    def nearest(self, width: int, height: int) -> tuple[int, int]:
        """The size nearest to one that cannot be: the largest of its shape where it is too large to be enlarged to."""
        if max(width, height) > self.enlarged_side_max:
            scale = self.enlarged_side_max / max(width, height)
            smaller = max(1, round(width * scale)), max(1, round(height * scale))
            if self._enlarged_from(*smaller):
                return smaller
        return self.nearest_native(width, height, area=width * height)

    def _enlarged_from(self, width: int, height: int) -> tuple[int, int] | None:
        """What is drawn where the picture is then enlarged to this size; None where it is not."""
        enlargeable = self.enlarges and max(width, height) <= self.enlarged_side_max
        if not enlargeable or width * height < self.width * self.height:
            return None
        drawn = self.nearest_native(width, height, area=self.width * self.height)
        skew = abs(math.log(drawn[0] / drawn[1] * height / width))
        return drawn if drawn[0] <= width and drawn[1] <= height and skew <= ENLARGED_SKEW_MAX else None

    def nearest_native(self, width: int, height: int, *, area: int) -> tuple[int, int]:
        """The native size nearest in shape to width:height, then in area (pixels) to `area`."""
        shape = max(width, 1) / max(height, 1)
        wanted_area = min(max(area, self.side_min**2), self.pixels_max)
        ideal = (math.sqrt(wanted_area * shape), math.sqrt(wanted_area / shape))
        candidates = {
            (self._side(w * self.side_multiple), self._side(h * self.side_multiple))
            for w in _around(ideal[0] / self.side_multiple)
            for h in _around(ideal[1] / self.side_multiple)
        }
        native = [size for size in candidates if self.is_native(*size)] or [(self.width, self.height)]

        def distance(size: tuple[int, int]) -> tuple[float, int]:
            w, h = size
            skew = abs(math.log(w / h / shape))
            return (round(skew + 0.25 * abs(math.log(w * h / wanted_area)), 9), -w * h)

        return min(native, key=distance)

    def _side(self, pixels: int) -> int:
        low = math.ceil(self.side_min / self.side_multiple) * self.side_multiple
        high = self.side_max // self.side_multiple * self.side_multiple
        return min(max(pixels, low), high)


def _around(multiples: float) -> range:
    return range(max(1, math.floor(multiples) - 2), math.ceil(multiples) + 3)
