"""The command `genserve generate`: what can be said on the command line, and nothing else."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from genserve.flags import ClientKey, Router, router_address

EPILOG = (
    "Examples:\n"
    '  genserve generate "a red circle" -o circle.png\n'
    '  genserve generate "a large red star above a small blue ring" --size 192x128 --seed 7\n'
    '  genserve generate "a yellow heart" --previews 3\n'
    '  genserve generate "a red door" --image house.jpg --mask door.png -o red.jpg'
)

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        show_default=False,
        help="Where the picture goes, a .png, .jpg or .webp file or a folder; an existing file is replaced. "
        "\\[default: genserve-JOB.png here]",
    ),
]
Size = Annotated[str, typer.Option(metavar="WxH", help="Pixels; auto is the model's own size.")]
Steps = Annotated[int | None, typer.Option(min=1, metavar="<int>", help="Denoising steps. \\[default: the model's]")]
Seed = Annotated[int | None, typer.Option(help="The same seed draws the same picture. \\[default: random]")]
Model = Annotated[str | None, typer.Option(help="One of `genserve status`. \\[default: the router's]")]
Guidance = Annotated[float | None, typer.Option(help="How closely to follow the prompt. \\[default: the model's]")]
NegativePrompt = Annotated[str | None, typer.Option(metavar="TEXT", help="What not to draw.")]
Priority = Annotated[int | None, typer.Option(help="-10 to 10, higher first. \\[default: 0]")]
Deadline = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Fail where the picture cannot be there by then.")
]
Format = Annotated[
    str | None, typer.Option("--format", help="png, jpeg or webp. \\[default: as FILE is named, else png]")
]
Quality = Annotated[
    int | None, typer.Option(help="1 to 100, of a jpeg or webp; a webp of 100 is lossless. \\[default: 90]")
]
Previews = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="<int>", help="Also write so many partial pictures as they form: FILE-preview-1.jpg and so on."
    ),
]
InputImage = Annotated[
    Path | None,
    typer.Option("--image", metavar="FILE", help="Start from this picture, a PNG, JPEG or WebP, and draw it anew."),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Change the image only where this one, of the same size, is transparent, or white if it has no alpha.",
    ),
]
Strength = Annotated[
    float | None, typer.Option(help="Above 0 to 1: how far to leave the image. \\[default: 0.6; with a mask 1]")
]
Key = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="A name of your own: said again with the same job, it finds the job of then for a day."
    ),
]


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.", show_default=False)],
    *,
    output: Output = None,
    size: Size = "auto",
    steps: Steps = None,
    seed: Seed = None,
    model: Model = None,
    guidance: Guidance = None,
    negative_prompt: NegativePrompt = None,
    priority: Priority = None,
    deadline: Deadline = None,
    format_: Format = None,
    quality: Quality = None,
    previews: Previews = None,
    image: InputImage = None,
    mask: Mask = None,
    strength: Strength = None,
    key: Key = None,
    router_: Router = None,
    key_file: ClientKey = None,
) -> None:
    """Draw one picture into a file, showing each step.

    Speaks ZeroMQ with the router and survives its restart. Ctrl-C cancels the job.
    """
    from genserve.generate import generate as run  # noqa: PLC0415  # keeps --help quick
    from genserve.generate import parse_size  # noqa: PLC0415  # keeps --help quick
    from genserve.inputs import read_inputs  # noqa: PLC0415  # keeps --help quick

    width, height = parse_size(size)
    inputs, files = read_inputs(image, mask)
    job: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "model": model,
        "width": width,
        "height": height,
        "steps": steps,
        "guidance_scale": guidance,
        "seed": seed,
        "priority": priority,
        "deadline_s": deadline,
        "format": format_,
        "quality": quality,
        "previews": previews,
        "inputs": msgspec.to_builtins(inputs) or None,
        "strength": strength,
    }
    raise typer.Exit(run(router_address(router_, key_file), job, output, files=files, key=key or ""))


def add_to(app: typer.Typer) -> None:
    """It alone."""
    app.command(epilog=EPILOG)(generate)
