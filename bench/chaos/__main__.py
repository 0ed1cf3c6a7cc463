"""Nothing accepted is lost: a whole GenServe of real processes, clients that insist, and trouble by the hundred.

    python -m bench.chaos [--jobs 1000] [--clients 20] [--faults 110] [--minutes 6] [--seed 1] [--stops 5 30]
    python -m bench.chaos --rolling [--jobs 1000] [--minutes 6] [--seed 1]

Starts a router with its journal on a small disk, three GPU daemons with no-op engines of unequal speed and a
gateway, keeps them running, and lets clients order pictures over HTTP and raw ZeroMQ while processes are
killed and stopped, connections are cut, half-opened and slowed, and the disk is filled. Then everything must
settle; every client's word is held against the router's and against its journal. Status 1 where anything was
lost, delivered differently, left hanging or not explained. Once more in calm, recovery is timed.
"""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos.audit import Verdict, ask_again, audit, read_journal, read_logs
from bench.chaos.drills import LIMITS_S, ROUTER_BACK, Drills
from bench.chaos.faults import Fault, Storm
from bench.chaos.fleet import Fleet
from bench.chaos.ledger import Ledger
from bench.chaos.load import Load
from bench.chaos.orders import make_orders
from bench.chaos.report import show
from bench.chaos.rolling import Rolling
from common.clock import monotonic_s

IN_STORM = "router serving again, in the storm"
NEWS_EVERY_S = 15.0


@dataclass
class Run:
    """One run, from the first process to the last word."""

    args: argparse.Namespace
    fleet: Fleet
    ledger: Ledger = field(default_factory=Ledger)
    verdict: Verdict = field(default_factory=Verdict)
    storm: list[Fault] = field(default_factory=list)
    times_s: dict[str, list[float]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    async def go(self) -> None:
        """Everything but the report."""
        over_s = self.args.minutes * 60
        orders = make_orders(self.args.jobs, self.args.clients, over_s, self.args.seed, calm=self.args.rolling)
        await self.fleet.start()
        load = Load(self.fleet, orders, self.ledger, seed=self.args.seed)
        news = asyncio.create_task(self._tell(load))
        try:
            await (self._roll(over_s) if self.args.rolling else self._rage(over_s))
            await self.fleet.ready()
            await load.settle(self.args.settle_s + max(0.0, orders[-1].at_s - over_s))
            await ask_again(self.fleet, self.ledger, self.verdict)
        finally:
            news.cancel()
            await asyncio.gather(news, return_exceptions=True)
            await load.close()
        if not self.args.rolling:
            await self._drill()
        lives = ", ".join(f"{part.name} {part.lives}" for part in self.fleet.parts.values())
        self.verdict.faults += await self.fleet.stop()
        read_logs(self.fleet, self.storm, self.verdict)
        self.notes += [f"Processes started: {lives}.", f"The router's disk: {self.fleet.disk.how}."]
        if self.verdict.without_room:
            self.notes.append(f"The router ended {self.verdict.without_room} times because its disk was full.")
        records = read_journal(self.fleet.state_dir)
        audit(records, self.ledger, self.storm, self.others, self.verdict)
        if self.args.rolling:
            self._nothing_felt()

    async def _rage(self, over_s: float) -> None:
        storm = Storm(self.fleet, stops_s=self.args.stops, seed=self.args.seed)
        self.storm = storm.faults
        await storm.rage(self.args.faults, over_s)
        self.verdict.faults += storm.went_wrong
        if storm.router_back_s:
            self.times_s[IN_STORM] = storm.router_back_s

    async def _roll(self, over_s: float) -> None:
        rolling = Rolling(self.fleet)
        self.storm, self.times_s = rolling.faults, rolling.times_s
        await rolling.run(over_s)

    async def _drill(self) -> None:
        drills = Drills(self.fleet)
        await drills.run(self.args.drills)
        self.others = drills.job_ids
        in_storm = self.times_s.pop(IN_STORM, None)
        self.times_s |= drills.times_s
        if in_storm:
            self.times_s[IN_STORM] = in_storm
        for what, times in drills.times_s.items():
            if max(times) > LIMITS_S[what]:
                self.verdict.faults.append(f"{what}: {max(times):.2f} s, allowed are {LIMITS_S[what]:g} s")

    def _nothing_felt(self) -> None:
        felt = {cause: n for cause, n in self.verdict.retried.items() if cause != "returned"}
        if felt:
            self.verdict.faults.append(f"a rolling restart was felt by jobs: {felt}")
        not_done = [entry for entry in self.ledger.entries if entry.end != "done"]
        self.verdict.faults += [f"{entry.order.key}: {entry.end} {entry.code}" for entry in not_done]

    async def _tell(self, load: Load) -> None:
        began = monotonic_s()
        while True:
            await asyncio.sleep(NEWS_EVERY_S)
            passed = f"{monotonic_s() - began:.0f} s"
            print(f"{passed}: {len(self.storm)} troubles, {load.open} orders open", file=sys.stderr, flush=True)


async def run(args: argparse.Namespace, folder: Path) -> int:
    """One run in `folder`; the exit status."""
    fleet, began = Fleet(folder), monotonic_s()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    this = Run(args, fleet)
    try:
        await this.go()
    finally:
        await fleet.close()
    trouble = f"{len(this.storm)} {'restarts' if args.rolling else 'troubles'}"
    took_s = monotonic_s() - began
    title = f"{trouble}, {args.jobs} jobs of {args.clients} clients, seed {args.seed}, {took_s:.0f} s"
    show(
        title=title,
        ledger=this.ledger,
        verdict=this.verdict,
        storm=this.storm,
        times_s=this.times_s,
        limits_s=LIMITS_S | {IN_STORM: LIMITS_S[ROUTER_BACK]},
        notes=this.notes,
    )
    return 1 if this.verdict.faults or this.ledger.faults else 0


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rolling", action="store_true", help="restart every part in order, and nothing else")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=20, help="half of them raw")
    parser.add_argument("--faults", type=int, default=110)
    parser.add_argument("--minutes", type=float, default=6.0, help="over which jobs and troubles are spread")
    parser.add_argument("--stops", type=float, nargs="+", default=[5.0, 30.0], help="seconds of each SIGSTOP")
    parser.add_argument("--drills", type=int, default=3, help="of each kind of recovery, timed in calm")
    parser.add_argument("--settle-s", type=float, default=120.0, help="seconds after the last trouble")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the logs and the journal, kept; it must be new")
    return parser.parse_args(words)


def main() -> int:
    """Run, report, and keep the logs where something was wrong."""
    args = parse()
    if args.keep is not None:
        args.keep.mkdir(parents=True)
        return asyncio.run(run(args, args.keep.absolute()))
    folder = Path(tempfile.mkdtemp(prefix="genserve-chaos-"))
    status = 1
    try:
        status = asyncio.run(run(args, folder))
    finally:
        if status:
            print(f"the parts' logs are kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
