"""A page as Chromium shows it, headless: what it has, how wide it is, what it loads."""

import json
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",  # the frame is read by the page around it
    "--virtual-time-budget=10000",
)
# Chromium's window is at least 500 pixels wide, so a phone's page stands in a frame.
AROUND = """<!doctype html><iframe src="%s" style="border: 0; width: %dpx; height: 800px"></iframe><pre></pre><script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument, view = page.defaultView
  const all = [...page.querySelectorAll("h1, h2, h3, p, li, figure, figcaption, svg, img, .wide")]
  document.querySelector("pre").textContent = JSON.stringify({
    tables: [...page.querySelectorAll("table")].map(table => table.rows.length),
    curves: [...page.querySelectorAll("svg")].map(curve => curve.getBoundingClientRect().left),
    pictures: [...page.images].map(image => image.naturalWidth),
    right: Math.max(...all.map(element => element.getBoundingClientRect().right)),
    width: page.documentElement.scrollWidth,
    ink: view.getComputedStyle(page.body).color,
    loaded: view.performance.getEntriesByType("resource").map(entry => entry.name),
  })
}
</script>
"""


def look(page: Path, folder: Path, width: int, dark: bool = False) -> dict[str, Any]:
    """What AROUND finds in a page shown at this width, in pixels; the folder keeps what the browser writes."""
    around = folder / f"around-{width}-{dark}.html"
    around.write_text(AROUND % (page.resolve().as_uri(), width), encoding="utf-8")
    own = (f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={int(not dark)}")
    done = subprocess.run(
        [CHROMIUM, *SWITCHES, *own, f"--window-size={width + 100},900", "--dump-dom", around.as_uri()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    text = done.stdout.partition("<pre>")[2].partition("</pre>")[0]
    assert text, done.stderr
    return json.loads(unescape(text))
