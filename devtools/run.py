"""`make run`: a whole portal on this machine, under one foreground supervisor.

It creates whatever is missing (database, development keys, a staff person, a customer), starts web
and worker, and prints where to go. A second start keeps all data. If one child dies, it says so and
stops all of them.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType

from devtools.people import CUSTOMER_EMAIL, STAFF_EMAIL, make_people
from portal.config import BadSetting, load_settings

ROOT = Path(__file__).resolve().parents[1]
START_S = 60
STOP_S = 30


def run_command(*arguments: str) -> None:
    """Run a `portal` command to its end.

    Raises:
        subprocess.CalledProcessError: the command failed and printed why.
    """
    subprocess.run([sys.executable, "-m", "portal", *arguments], check=True, cwd=ROOT)


def wait_for_page(origin: str, children: dict[str, subprocess.Popen[bytes]]) -> bool:
    """Wait until the web process answers; return False if a child died or time ran out."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if any(child.poll() is not None for child in children.values()):
            return False
        try:
            with urllib.request.urlopen(f"{origin}/healthz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def stop(children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Ask every child to stop; kill those that do not."""
    for child in children.values():
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    end = time.monotonic() + STOP_S
    for child in children.values():
        try:
            child.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()


def main() -> int:
    """Run until stopped; return 0 if a person stopped it, 1 if a child died."""
    os.environ["PORTAL_DEV"] = "1"
    try:
        settings = load_settings()
        run_command("init", "--dev")
    except (BadSetting, subprocess.CalledProcessError) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    password = make_people(settings)

    python = sys.executable
    children = {
        "web": subprocess.Popen([python, "-m", "portal", "serve"], cwd=ROOT),
        "worker": subprocess.Popen([python, "-m", "portal", "worker"], cwd=ROOT),
    }
    asked_to_stop = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    if not wait_for_page(settings.origin, children) and not asked_to_stop:
        print("make run: the portal did not start; see above.", file=sys.stderr)
        stop(children)
        return 1
    print(
        f"""
  The portal runs at   {settings.origin}
  Mail it sends        {settings.origin}/dev/mail

  Customer             {CUSTOMER_EMAIL}
  Staff                {STAFF_EMAIL}   (code: make totp EMAIL={STAFF_EMAIL})
  Password of both     {password}

  Data is kept in      {settings.data_dir}
  Stop with Ctrl-C.
""",
        flush=True,
    )
    while not asked_to_stop:
        for name, child in children.items():
            if child.poll() is not None:
                ended = f"make run: {name} ended with {child.returncode}; stopping all."
                print(ended, file=sys.stderr)
                stop(children)
                return 1
        time.sleep(0.5)
    stop(children)
    return 0


if __name__ == "__main__":
    sys.exit(main())
