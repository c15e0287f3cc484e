"""The report page of a run: settings, scores, curves and sample sheets. It opens offline and has no scripts."""

import io
import re
from dataclasses import dataclass
from html import escape

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --quiet: #59636e; --rule: #d8dee4; --line: #0969da;
  --mark: #bc4c00; --shade: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --ink: #e6edf3; --quiet: #9198a1; --rule: #30363d;
  --line: #58a6ff; --mark: #ffa657; --shade: #161b22 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 0 auto; padding: 1.5rem 1rem 3rem;
  color: var(--ink); background: var(--paper); overflow-wrap: break-word }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem } p { margin: .3rem 0 } .quiet { color: var(--quiet) }
ul { columns: 17rem auto; column-gap: 2rem; list-style: none; margin: .4rem 0; padding: 0; font-size: .875rem }
li { break-inside: avoid; padding: .1rem 0 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .8rem; text-align: right; white-space: nowrap; font-weight: normal }
th:first-child, td:first-child { text-align: left; padding-left: .4rem }
thead th { color: var(--quiet); font-size: .875rem } tbody tr { border-top: 1px solid var(--rule) }
.scores tbody tr:first-child { background: var(--shade) } .scores tbody tr:first-child > * { font-weight: 600 }
.curves { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 1rem 1.5rem }
figure { margin: 0; min-width: 0 } figcaption { font-size: .875rem; margin-bottom: .2rem }
svg, img { display: block; width: 100%; height: auto } svg text { font-family: system-ui, sans-serif !important }
img { max-width: 940px; border-radius: 6px; border: 1px solid var(--rule) }
"""
SIZE = (4.4, 2.4)  # inches of a curve; the page scales it
MARGINS = {"left": 0.14, "right": 0.96, "top": 0.97, "bottom": 0.2}  # the same for all, so that x axes are aligned
# Colours that no style has, replaced by the page's own, which differ in light and dark.
COLOURS = {"#010101": "var(--quiet)", "#020202": "var(--line)", "#030303": "var(--mark)"}
QUIET, LINE, MARK = COLOURS
SVG = {
    "svg.hashsalt": "curves",
    "svg.fonttype": "none",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
} | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), QUIET)
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
LOG_FALL, MANY = 10, 1000  # a curve that falls by more: drawn on a logarithmic scale; whose labels are powers of ten
SMALLEST = "rmse"  # the line whose smallest point is marked: the best weights are those of that step


@dataclass(frozen=True)
class Heading:
    """What the top of the page says of a run."""

    systems: list[str]
    recipe: str
    devices: str  # that the models were trained on
    changes: dict[str, tuple[str, str]]  # settings that differ from the defaults: here, by default


def make_page(
    heading: Heading,
    metrics: dict[str, dict[str, dict[str, float]]],
    comparison: pd.DataFrame | None,
    curves: dict[str, dict[str, pd.DataFrame]],
    sheets: dict[str, str],
) -> str:
    """The page as HTML.

    `metrics` maps set -> fill -> subset -> RMSE; `comparison` is a table of text, shown if there is one. `curves` maps
    system -> curve -> a table with the column `step` and a column for each line to plot. `sheets` maps a title to a
    sheet's file name.
    """
    title = f"Photo reconstruction: {', '.join(heading.systems)}"
    tables = "" if "validation" in metrics else "<p>No pairs were held out, so there is no validation RMSE.</p>"
    tables += "".join(f"<h2>RMSE, {escape(name)}</h2>{score_table(scores)}" for name, scores in metrics.items())
    if comparison is not None:
        tables += f"<h2>The systems</h2>{html_table(comparison.set_index('system'))}"
    plots = "".join(f"<h3>{escape(system)}</h3>{plots_of(frames)}" for system, frames in curves.items())
    pictures = "".join(
        f'<h2>{escape(name)}</h2><a href="{escape(file)}"><img src="{escape(file)}" alt="{escape(name)}"></a>'
        for name, file in sheets.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}, recipe {escape(heading.recipe)}</title><style>{STYLE}</style>"
        f"<h1>{escape(title)}</h1>{top(heading)}{tables}<h2>Curves</h2>{plots}{pictures}\n</html>\n"
    )


def top(heading: Heading) -> str:
    """The recipe, the devices and the changed settings as HTML."""
    changes = "".join(
        f'<li>{escape(name)}: <b>{escape(here)}</b> <span class="quiet">({escape(default)})</span></li>'
        for name, (here, default) in heading.changes.items()
    )
    listed = f'<p class="quiet">Settings that differ from the defaults, which are in brackets:</p><ul>{changes}</ul>'
    return (
        f"<p>Recipe <b>{escape(heading.recipe)}</b>, trained on {escape(heading.devices)}.</p>"
        f"{listed if changes else '<p>All settings have their defaults.</p>'}"
    )


def score_table(scores: dict[str, dict[str, float]]) -> str:
    """An HTML table of scores, with a row for each fill and a column for each subset."""
    frame = pd.DataFrame(scores).T
    frame = frame.rename(index=words, columns=words).map(lambda value: "" if pd.isna(value) else f"{value:.4f}")
    return f'<div class="scores">{html_table(frame)}</div>'


def words(name: str) -> str:
    return name.replace("_", " ")


def html_table(frame: pd.DataFrame) -> str:
    """A table of text in a box of its own, which scrolls where the page is narrow."""
    return f'<div class="wide">{frame.rename_axis(None).to_html(border=0, justify="unset")}</div>'


def plots_of(frames: dict[str, pd.DataFrame]) -> str:
    """The curves of one system side by side, all over the same steps; the validation first."""
    last = max((int(frame["step"].max()) for frame in frames.values()), default=0)
    lines = [
        (curve, line, frame["step"], frame[line])
        for curve, frame in sorted(frames.items(), reverse=True)
        for line in frame.columns.drop("step")
    ]
    figures = "".join(
        f"<figure><figcaption>{caption(curve, line, steps, values)}</figcaption>{plot(steps, values, last)}</figure>"
        for curve, line, steps, values in lines
    )
    return f'<div class="curves">{figures}</div>'


def caption(curve: str, line: str, steps: pd.Series, values: pd.Series) -> str:
    """What a curve shows, as HTML."""
    if line != SMALLEST:
        return f"{escape(curve)}: {escape(words(line))}"
    low = values.idxmin()
    smallest = f"smallest {values[low]:.4f} at step {steps[low]:,}"
    return f'{escape(curve)}: {line.upper()} <span class="quiet">{smallest}</span>'


def plot(steps: pd.Series, values: pd.Series, last: int) -> str:
    """One curve as SVG, up to step `last`. The same values give the same bytes, whatever style a matplotlibrc has."""
    with matplotlib.rc_context(dict(matplotlib.rcParamsDefault) | SVG):
        figure = Figure(figsize=SIZE)
        axes = figure.subplots(gridspec_kw=MARGINS)
        axes.plot(steps, values, color=LINE, linewidth=1.4, marker="." if len(values) < 50 else None)
        if values.name == SMALLEST:
            low = values.idxmin()
            axes.plot(steps[low], values[low], "o", color=MARK, markersize=9, fillstyle="none", markeredgewidth=1.6)
        if values.min() > 0 and (fall := (values.cummax() / values).max()) > LOG_FALL:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if fall < MANY else (1,)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="step", xlim=(0, last * 1.03))
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid(color=QUIET, alpha=0.25)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=NO_METADATA)
    svg = text.getvalue()[text.getvalue().index("<svg") :]
    return re.sub("|".join(COLOURS), lambda found: COLOURS[found[0]], svg)
