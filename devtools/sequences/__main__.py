"""Write the file: `python -m devtools.sequences`."""

from devtools.sequences import FILE, content

FILE.parent.mkdir(exist_ok=True)
FILE.write_bytes(content())
