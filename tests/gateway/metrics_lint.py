"""What `promtool check metrics` holds a scrape to, and a little more: names, help, types, units, whole histograms."""

import re
from collections import defaultdict

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
SAMPLE = re.compile(r"(?P<name>[^{\s]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
KINDS = ("counter", "gauge", "histogram", "summary", "untyped")
RESERVED = {"quantile", "instance", "job"}  # instance and job are Prometheus's own
NO_UNITS = {
    "ms", "s", "sec", "secs", "milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "weeks",
    "b", "kb", "mb", "gb", "kib", "mib", "gib", "bits", "kilobytes", "megabytes", "gigabytes", "percent", "pct",
    "percentage", "celcius", "watts", "num", "cnt", "lat", "util",
}  # fmt: skip


def faults(text: str) -> list[str]:
    """All that is wrong with a scrape's answer in Prometheus's text format."""
    lint = _Lint()
    for line in text.splitlines():
        lint.line(line)
    lint.end()
    return lint.found


class _Lint:
    def __init__(self) -> None:
        self.found: list[str] = []
        self.family, self.kind = "", ""
        self.seen: set[str] = set()
        self.series: set[str] = set()
        self.classes: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        self.totals: dict[tuple[str, str], float] = {}

    def line(self, line: str) -> None:
        """One line of it."""
        if line.startswith("# HELP "):
            self.family, _, text = line.removeprefix("# HELP ").partition(" ")
            self._family(text)
        elif line.startswith("# TYPE "):
            name, _, self.kind = line.removeprefix("# TYPE ").partition(" ")
            if name != self.family or self.kind not in KINDS:
                self.found.append(f"{line!r} does not follow its HELP, or is no type")
            self._kind_of_name()
        elif line and not line.startswith("#"):
            self._sample(line)

    def _family(self, text: str) -> None:
        name = self.family
        if name in self.seen:
            self.found.append(f"{name} comes twice")
        self.seen.add(name)
        if not name.startswith("genserve_") or not NAME.fullmatch(name):
            self.found.append(f"{name} is no name of ours")
        if len(text) < 10 or not text.endswith("."):
            self.found.append(f"{name} has no sentence of help")
        words = set(name.split("_"))
        if words & NO_UNITS or words & set(KINDS):
            self.found.append(f"{name} is not in base units, or names its type")

    def _kind_of_name(self) -> None:
        total = self.family.endswith("_total")
        if total != (self.kind == "counter"):
            self.found.append(f"{self.family}: counters, and nothing else, end in _total")
        if self.family.endswith(("_count", "_sum", "_bucket", "_created")):
            self.found.append(f"{self.family} ends as a histogram's part")

    def _sample(self, line: str) -> None:
        match = SAMPLE.fullmatch(line)
        if match is None:
            self.found.append(f"{line!r} is no sample")
            return
        name, labels, value = match["name"], match["labels"] or "", float(match["value"])
        suffix = name.removeprefix(self.family) if self.kind == "histogram" else ""
        if name != self.family + suffix or suffix not in ("", "_bucket", "_count", "_sum"):
            self.found.append(f"{name} stands among {self.family}")
        if (series := f"{name}{{{labels}}}") in self.series:
            self.found.append(f"{series} comes twice")
        self.series.add(series)
        given = LABEL.findall(labels)
        if ",".join(f'{key}="{text}"' for key, text in given) != labels:
            self.found.append(f"{labels!r} are no labels")
        for key, _ in given:
            if key in RESERVED or not NAME.fullmatch(key) or (key == "le" and suffix != "_bucket"):
                self.found.append(f"{name} has a label {key}")
        if self.kind == "counter" and value < 0:
            self.found.append(f"{series} is negative")
        self._part(suffix, dict(given), value)

    def _part(self, suffix: str, labels: dict[str, str], value: float) -> None:
        bound = labels.pop("le", "nan")
        key = (self.family, repr(labels))
        if suffix == "_bucket":
            self.classes[key].append((float(bound), value))
        elif suffix == "_count":
            self.totals[key] = value

    def end(self) -> None:
        """Every histogram is whole."""
        for key, classes in self.classes.items():
            bounds, counts = [bound for bound, _ in classes], [count for _, count in classes]
            if bounds != sorted(set(bounds)) or counts != sorted(counts):
                self.found.append(f"{key} does not rise")
            if bounds[-1] != float("inf") or counts[-1] != self.totals.get(key):
                self.found.append(f"{key} does not end with all of it")
