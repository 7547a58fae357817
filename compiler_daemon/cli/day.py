"""The verbs in the order of a day, each in a few words: what `--help` lists."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

DAY = {
    "run": "Run a trainer; start a daemon where none is.",
    "serve": "Serve until stopped, or in the background.",
    "status": "Show what the daemon does now.",
    "stop": "Stop the daemon gracefully.",
    "warm": "Compile a sweep's graphs before it starts.",
    "stats": "Show what was saved and spent.",
    "explain": "Say why graphs of the last run missed.",
    "page": "Let a browser see the daemon's page.",
    "doctor": "Say what is wrong, and what to do.",
    "logs": "Show what the daemon and its workers log.",
    "ls": "List the artifacts that are kept.",
    "show": "Show one graph or kernel.",
    "pin": "Keep artifacts permanently.",
    "unpin": "Undo `pin`.",
    "rm": "Remove artifacts.",
    "gc": "Make room: remove what is old or unused.",
    "export": "Write artifacts to a signed file.",
    "import": "Take in what `export` wrote.",
    "replay": "Compile kept graphs again, here and now.",
    "tier": "Look into a tier that daemons share.",
    "keys": "Let in other machines; trust signers.",
    "config": "Show every setting, and where it is from.",
    "service": "Have systemd start a daemon at your login.",
    "dir": "Print the daemon's directory.",
    "clean": "Remove everything that a daemon has written.",
}


class InTheOrderOfADay(TyperGroup):
    """Lists the verbs as they are needed, and not as modules define them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all verbs; one that has no place in the day comes last."""
        order = {name: number for number, name in enumerate(DAY)}
        return sorted(super().list_commands(ctx), key=lambda name: order.get(name, len(order)))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb, with its few words."""
        command: Any = super().get_command(ctx, cmd_name)
        if command is not None and cmd_name in DAY:
            command.short_help = DAY[cmd_name]
        return command
