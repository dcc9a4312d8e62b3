"""Import all of `licensing`, verify every vector, and print whatever was touched on the way.

Run as a program: `python -B -m tests.architecture.pure`. Audit hooks see files, sockets, processes;
a profile function sees calls that `licensing` makes to clocks and to the environment.
"""

import importlib
import json
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

VECTORS = Path(__file__).resolve().parents[2] / "licensing" / "vectors"
TOUCHING = (
    "open", "os.", "socket.", "subprocess.", "shutil.", "tempfile.", "glob.", "fcntl.", "ctypes.",
    "pathlib.", "signal.", "sqlite3.", "time.", "urllib.",
)  # fmt: skip
LOADING = ("os.listdir", "os.scandir")
CLOCKS = ("now", "utcnow", "today")

touched: list[str] = []
doing = {"importing": True, "watching": False}


def on_event(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what reaches out of the process; while importing, but for modules themselves."""
    if not doing["watching"] or not event.startswith(TOUCHING):
        return
    if doing["importing"] and (
        event in LOADING or (event == "open" and str(arguments[0]).endswith((".py", ".pyc", ".so")))
    ):
        return
    touched.append(f"{event} {arguments!r}")


def on_call(frame: FrameType, event: str, argument: Any) -> None:
    """Note calls `licensing` makes itself to a clock or to the environment."""
    if event == "c_call" and _is_ours(frame):
        owner = getattr(argument, "__self__", None)
        is_clock = getattr(argument, "__module__", "") == "time" or (
            getattr(owner, "__module__", "") == "datetime" and argument.__name__ in CLOCKS
        )
        if is_clock:
            touched.append(f"clock {argument!r}")
    elif event == "call" and _module(frame) == "os":
        caller: FrameType | None = frame
        while caller is not None and _module(caller) in ("os", "collections.abc"):
            caller = caller.f_back
        if _is_ours(caller):
            touched.append(f"os {frame.f_code.co_name}")


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _is_ours(frame: FrameType | None) -> bool:
    return frame is not None and _module(frame).partition(".")[0] == "licensing"


PLANTED = """
import datetime, os, time
def misbehave():
    time.time()
    datetime.datetime.now()
    os.environ.get("HOME")
    open(os.devnull).close()
"""


def noticed() -> list[str]:
    """Return what is noticed of a module that does all that is forbidden."""
    planted: dict[str, Any] = {"__name__": "licensing.planted"}
    exec(PLANTED, planted)
    watch(planted["misbehave"])
    seen = touched[:]
    touched.clear()
    return seen


def watch(work: Callable[[], None]) -> None:
    """Do some work under the hooks."""
    sys.setprofile(on_call)
    doing["watching"] = True
    work()
    doing["watching"] = False
    sys.setprofile(None)


def load() -> None:
    """Import every module of `licensing`."""
    import licensing

    for module in pkgutil.iter_modules(licensing.__path__, "licensing."):
        importlib.import_module(module.name)


def main() -> None:
    """Watch the import, then the verifying."""
    before = set(sys.modules)
    sys.addaudithook(on_event)
    watch(load)
    imported = set(sys.modules) - before

    from tests.conformance.python_runner import outcome, read_vectors

    vectors = list(read_vectors(VECTORS))
    before = set(sys.modules)
    # The first signature of all loads cryptography; from then on nothing is loaded any more.
    outcome(*next(each for each in vectors if each[1]["result"] == "valid"))
    imported |= set(sys.modules) - before
    doing["importing"] = False
    codes: set[str] = set()
    watch(lambda: codes.update(outcome(*each) for each in vectors))
    roots = {name.partition(".")[0] for name in imported}
    facts = {
        "touched": touched[:],
        "noticed": noticed(),
        "modules": sorted(imported),
        "foreign": sorted(roots - sys.stdlib_module_names),
        "codes": sorted(codes),
        "count": len(vectors),
    }
    sys.stdout.write(json.dumps(facts))


if __name__ == "__main__":
    main()
