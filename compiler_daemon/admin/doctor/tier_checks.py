"""Checks of `doctor` of tiers: whether each can be used, what the signers here are worth, how the daemon fares with it.

To see whether creating a name is exclusive, a name of a few bytes is created and removed. No password is printed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from compiler_daemon.admin.answers import DaemonState, TierState
from compiler_daemon.admin.status.tiers import calls_text
from compiler_daemon.errors import DaemonError
from compiler_daemon.text import numbers
from compiler_daemon.text.findings import Finding, note, problem
from compiler_daemon.tier.address import TierAddress, tier_at, tier_places
from compiler_daemon.tier.engines import check_packing, open_engine
from compiler_daemon.tier.signer_files import SignerFiles
from compiler_daemon.tier.signers import signer_findings


def check_tiers(
    directory: Path, environ: Mapping[str, str], named: Sequence[str], state: DaemonState | None
) -> Iterator[Finding]:
    """Check the tiers that are named, or those of the environment, and what a running daemon says of its own.

    Where there are none, nothing is found.
    """
    try:
        addresses = [tier_at(place, environ) for place in tier_places(named, environ)]
    except DaemonError as error:
        yield problem("tier", str(error))
        return
    if addresses:
        yield from _usable(addresses, environ)
        yield from _signers(directory)
    for tier in state.tiers if state is not None else ():
        yield from _in_use(tier)
    if state is not None:
        shared = {tier.address for tier in state.tiers}
        for address in addresses:
            if str(address) not in shared:
                yield note("tier", f"{address} is not used by the daemon that runs: start it with --tier {address}")


def _usable(addresses: Sequence[TierAddress], environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        check_packing()
    except DaemonError as error:
        yield problem("tier", str(error))
        return
    for address, findings in zip(addresses, asyncio.run(_checked(addresses, environ)), strict=True):
        for finding in findings:
            told = len(addresses) == 1 or str(address) in finding.text
            yield finding if told else replace(finding, text=f"{address}: {finding.text}")


async def _checked(addresses: Sequence[TierAddress], environ: Mapping[str, str]) -> list[list[Finding]]:
    async def check(address: TierAddress) -> list[Finding]:
        try:
            engine = open_engine(address, environ)
            try:
                return await engine.check()
            finally:
                await engine.close()
        except DaemonError as error:
            return [problem("tier", str(error))]

    return await asyncio.gather(*map(check, addresses))


def _signers(directory: Path) -> Iterator[Finding]:
    try:
        known = SignerFiles(directory).read()
    except DaemonError:
        return  # said by the check of keys
    yield from signer_findings(known)


def _in_use(tier: TierState) -> Iterator[Finding]:
    for what, calls in (("reads", tier.reads), ("writes", tier.writes)):
        if calls.state != "closed":
            yield note(f"tier {what}", f"the daemon's {what} of {tier.address} are {calls_text(calls)}")
    if tier.rejections:
        unused = numbers.counted(sum(tier.rejected.values()), "object")
        yield note("tier objects", f"{unused} of {tier.address} could not be used; the last: {tier.rejections[-1]}")
