"""Turns what a terminal shows into an SVG.

    tmux capture-pane -e -p > shown.ansi
    python scripts/terminal_picture.py shown.ansi docs/terminal_live.svg --title "the command"

Fonts are the viewer's: the picture loads nothing.
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shown", type=Path, help="the screen's content, with its escape sequences")
    parser.add_argument("picture", type=Path, help="the SVG to write")
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    text = Text.from_ansi(options.shown.read_text(encoding="utf-8").rstrip())
    width = max(map(len, text.plain.splitlines()))
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(text)
    own_fonts = re.sub(r"@font-face\s*{{.*?}}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(title=options.title, code_format=own_fonts, unique_id="terminal")
    options.picture.write_text(svg.replace("Fira Code", "monospace"), encoding="utf-8")


if __name__ == "__main__":
    main()
