"""The plots of the report: latency, how it is spread, throughput, the queue, and what each GPU did when.

Pure: from a run and its figures to HTML with SVG inside. At most MARKS_MAX marks a plot: a longer run is thinned, and
the plot says so.
"""

from collections.abc import Sequence

from genserve.burst import timeline
from genserve.burst.record import DONE, GAVE_UP, Request, Run
from genserve.burst.statistics import Summary, duration
from genserve.burst.svg import COLOURS, Axis, axis, bar, cross, figure, mark, path, plot, point, steps
from genserve.status import number

MARKS_MAX = 3000
HEIGHT_PX = 220
ROW_PX, ROWS_PX_MIN = 34, 76
HISTOGRAM_BINS = 40
CURVE_POINTS = 400
DEPTHS_DRAWN = 160
ROW_FILL = 0.72  # of a row's height

Shapes = dict[str, str]  # a shape and its class of colour


def plots(run: Run, figures: Summary) -> list[str]:
    """All that there is something to draw for."""
    shapes = colours(run)
    drawn = [latency(run, shapes), histogram(run, figures), throughput(run, figures), queue(run), gantt(run, shapes)]
    return [each for each in drawn if each]


def colours(run: Run) -> Shapes:
    """A colour for each shape, by size and steps."""
    by_size = {
        request.shape: (request.order.width * request.order.height, request.order.steps) for request in run.requests
    }
    return {shape: f"c{i % COLOURS}" for i, shape in enumerate(sorted(by_size, key=lambda shape: by_size[shape]))}


def latency(run: Run, shapes: Shapes) -> str:
    """Each request: when it was due, how long it took."""
    shown, note = _thinned(run.requests)
    if not shown:
        return ""
    x = _time_axis(run)
    y = axis(max(request.latency_s for request in shown) * 1.04, unit="s")
    marks = []
    for request in shown:
        place = x.part(request.due_s), y.part(request.latency_s)
        told = f"request {request.order.number}: {duration(request.latency_s)}, {request.shape}"
        if request.outcome == DONE:
            marks.append(point(*place, shapes[request.shape], told))
        elif request.outcome == GAVE_UP:
            marks.append(point(*place, "gone", f"{told}, its client gave up"))
        else:
            marks.append(cross(*place, f"{told}, {request.code}"))
    legend = [(kind, shape) for shape, kind in shapes.items()]
    legend += [("bad", "no picture")] if any(r.outcome not in (DONE, GAVE_UP) for r in shown) else []
    legend += [("gone", "its client gave up")] if any(r.outcome == GAVE_UP for r in shown) else []
    text = f"each dot is a request: when it was due, and how long until its picture came{note}"
    return figure("Latency over time", text, plot("".join(marks), x, y.ticks(), height_px=HEIGHT_PX), legend)


def histogram(run: Run, figures: Summary) -> str:
    """How many requests took how long, and the share that took no longer."""
    times = sorted(request.latency_s for request in run.requests if request.outcome == DONE)
    if not times or figures.latency is None:
        return ""
    x = axis(times[-1] * 1.0001, unit="s")
    width = timeline.nice_step(x.end, HISTOGRAM_BINS)
    counts = [0] * (int(times[-1] / width) + 1)
    for took in times:
        counts[int(took / width)] += 1
    y = axis(max(counts) * 1.04, whole=True)

    def words(index: int) -> str:
        return f"{duration(index * width)} to {duration((index + 1) * width)}"

    marks = [
        bar("c0", x=x.part(i * width), width=x.part(width) * 0.94, height=y.part(count), told=f"{count} of {words(i)}")
        for i, count in enumerate(counts)
        if count
    ]
    every = max(1, len(times) // 400)
    curve = [
        (x.part(took), 100 * (i + 1) / len(times))
        for i, took in enumerate(times)
        if i % every == 0 or took == times[-1]
    ]
    marks += [path([(0.0, 0.0), *steps([(curve[0][0], 0.0), *curve])], "curve")]
    marks += [mark(x.part(figures.latency.p50)), mark(x.part(figures.latency.p95))]
    text = f"median {duration(figures.latency.p50)}, 95 % within {duration(figures.latency.p95)} (the dashed lines)"
    legend = [("c0", "requests"), ("curve", "share that took no longer, 0 to 100 %")]
    return figure("How long requests took", text, plot("".join(marks), x, y.ticks(), height_px=HEIGHT_PX), legend)


def throughput(run: Run, figures: Summary) -> str:
    """Pictures a second, as they came."""
    bins = timeline.throughput(run)
    if not bins:
        return ""
    x = _time_axis(run)
    rates = [each.pictures / each.width_s for each in bins]
    y = axis(max(rates) * 1.04)
    marks = [
        bar(
            "c2",
            x=x.part(each.begin_s),
            width=x.part(each.width_s) * 0.94,
            height=y.part(rate),
            told=f"{number(rate)} a second",
        )
        for each, rate in zip(bins, rates, strict=True)
        if rate
    ]
    mean = 100 - y.part(figures.pictures_per_s)
    marks.append(f'<line x1="0" x2="100%" y1="{mean:.2f}%" y2="{mean:.2f}%" class="mark"/>')
    text = f"in steps of {duration(bins[0].width_s)}; {number(figures.pictures_per_s)} on average (the dashed line)"
    return figure("Pictures a second", text, plot("".join(marks), x, y.ticks(), height_px=HEIGHT_PX))


def queue(run: Run) -> str:
    """How many jobs waited and ran."""
    depths = timeline.depths(run)
    if not depths:
        return ""
    shown, note = depths, ""
    if len(depths) > DEPTHS_DRAWN:
        shown = timeline.averaged(depths, DEPTHS_DRAWN)
        note = f", averaged over {duration(shown[1].at_s - shown[0].at_s)}"
    x = axis(timeline.end_s(run), unit="s")
    y = axis(max(max(each.waiting, each.running) for each in shown) * 1.04, whole=True)
    drawing = path(steps((x.part(d.at_s), y.part(d.waiting)) for d in shown), "area c1", filled=True)
    drawing += path(steps((x.part(d.at_s), y.part(d.running)) for d in shown), "line c0")
    legend = [("c1", "waiting"), ("c0", "running")]
    text = f"jobs of this run in the router's queue, and on the GPUs{note}"
    return figure("The queue", text, plot(drawing, x, y.ticks(), height_px=HEIGHT_PX), legend)


def gantt(run: Run, shapes: Shapes) -> str:
    """A row a GPU: what it drew when."""
    spans = timeline.spans(run)
    if not spans:
        return ""
    names = {gpu.worker_id: gpu.name for gpu in run.gpus}
    rows = list(dict.fromkeys([*names, *(span.worker_id for span in spans)]))
    requests = timeline.requests_by_number(run)
    x = axis(timeline.end_s(run), unit="s")
    each = 100 / len(rows)
    marks, note = [], ""
    for row, worker_id in enumerate(rows):
        y = 100 - each * (row + 0.5 + ROW_FILL / 2)
        marks.append(bar("track", x=0, width=100, y=y, height=each * ROW_FILL))
        own = [span for span in spans if span.worker_id == worker_id]
        if len(spans) > MARKS_MAX:
            note = "; neighbours are drawn as one"
            parts = _blocks(own, timeline.end_s(run) / 1000)
            marks += [bar("c0", x=x.part(b), width=x.part(e - b), y=y, height=each * ROW_FILL) for b, e in parts]
            continue
        for span in own:
            request = requests[span.number]
            told = f"request {span.number} on {names.get(worker_id, worker_id)}: {request.shape}, "
            told += f"ran {duration(span.end_s - span.begin_s)} after {duration(span.waited_s)} of waiting"
            kind = f"span {shapes[request.shape] if span.done else 'bad'}"
            begin, length = x.part(span.begin_s), x.part(span.end_s - span.begin_s)
            marks.append(bar(kind, x=begin, width=length, y=y, height=each * ROW_FILL, told=told))
    labels = [(100 - each * (row + 0.5), names.get(worker_id, worker_id)) for row, worker_id in enumerate(rows)]
    height = max(ROWS_PX_MIN, ROW_PX * len(rows))
    legend = [(kind, shape) for shape, kind in shapes.items()]
    legend += [("bad", "no picture came of it")] if not all(span.done for span in spans) else []
    text = f"each block is a job, from its start on the GPU to its end; what is empty was idle{note}"
    body = plot("".join(marks), x, labels, height_px=height, lines=False)
    return figure("What each GPU did", text, body, legend, wide=True)


def _time_axis(run: Run) -> Axis:
    return axis(max((request.ended_s for request in run.requests), default=0.0), unit="s")


def _thinned(requests: Sequence[Request]) -> tuple[list[Request], str]:
    """As many as may be drawn, and how that is told; a failure is never left out before a success."""
    every = -(-len(requests) // MARKS_MAX)
    if every <= 1:
        return list(requests), ""
    bad = [request for request in requests if request.outcome != DONE]
    shown = [request for request in requests if request.outcome == DONE][::every]
    return shown + bad[:MARKS_MAX], f"; one in {every} is drawn"


def _blocks(spans: Sequence[timeline.Span], gap_s: float) -> list[tuple[float, float]]:
    """Spans as one where the gap between them is too small to be seen."""
    joined = timeline.merged((span.begin_s, span.end_s + gap_s) for span in spans)
    return [(begin, end - gap_s) for begin, end in joined]
