"""`make audit`: looks up known vulnerabilities of the locked versions with pip-audit.

A package that could not be checked is not a success. Exits 0 only if every locked package was
looked up and none is known to be vulnerable, 1 if one is, and 2 if one could not be checked.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKED = ROOT / "requirements.txt"
COMMAND = (
    *(sys.executable, "-m", "pip_audit", "--strict", "--disable-pip", "--require-hashes"),
    *("--progress-spinner", "off", "--format", "json", "--requirement", str(LOCKED)),
)
VULNERABLE, UNCHECKED = 1, 2


def locked(text: str) -> set[str]:
    """Return the packages in a locked requirements file, as `name==version`."""
    return set(re.findall(r"^[a-z0-9.-]+==[^\s;\\]+", text, re.MULTILINE))


def judge(wanted: set[str], report: str) -> tuple[int, list[str]]:
    """Return the exit code and the lines to print for pip-audit's report."""
    try:
        dependencies = json.loads(report)["dependencies"]
        checked = {f"{each['name']}=={each['version']}" for each in dependencies if "vulns" in each}
        found = [
            f"{each['name']} {each['version']}: {vulnerability['id']}, fixed in "
            f"{', '.join(vulnerability['fix_versions']) or 'no version yet'}"
            for each in dependencies
            for vulnerability in each.get("vulns", ())
        ]
    except (ValueError, KeyError, TypeError):
        return UNCHECKED, ["could not check: pip-audit gave no report"]
    missed = sorted(wanted - checked)
    if missed or not wanted:
        return UNCHECKED, [*found, f"could not check: {', '.join(missed) or 'nothing is locked'}"]
    if found:
        return VULNERABLE, found
    return 0, [f"{len(checked)} locked packages, none known to be vulnerable"]


def main() -> int:
    """Run pip-audit and judge its report."""
    ran = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    status, lines = judge(locked(LOCKED.read_text()), ran.stdout)
    if status == UNCHECKED:
        lines += ran.stderr.strip().splitlines()[-1:]
    print("\n".join(lines), file=sys.stderr if status else sys.stdout)
    return status


if __name__ == "__main__":
    sys.exit(main())
