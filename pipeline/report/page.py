"""The report page of a run: scores, curves and sample sheet. It opens offline and has no scripts."""

import io
from html import escape
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .3em .8em; text-align: right }
th:first-child, td:first-child { text-align: left } tr + tr { border-top: 1px solid #ddd }
img, svg { max-width: 100%; height: auto } .curves { display: flex; flex-wrap: wrap } .curves > * { flex: 1 1 400px }
"""
SVG = {"svg.hashsalt": "curves", "svg.fonttype": "none"}


def make_page(title: str, metrics: dict[str, Any], curves: dict[str, dict[str, pd.DataFrame]], sheet: str) -> str:
    """The page as HTML. `metrics` maps set -> fill -> subset -> RMSE. `curves` maps system -> curve -> a table with the
    column `step` and a column for each line to plot. `sheet` is the sample sheet's file name."""
    tables = "" if "validation" in metrics else "<p>No pairs were held out, so there is no validation RMSE.</p>"
    tables += "".join(f"<h2>RMSE, {escape(name)}</h2>{table(scores)}" for name, scores in metrics.items())
    plots = [
        plot(frame["step"], frame[line], f"{system}, {curve}: {line}")
        for system, frames in curves.items()
        for curve, frame in frames.items()
        for line in frame.columns.drop("step")
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f'<h1>{escape(title)}</h1>{tables}<h2>Curves</h2><div class="curves">{"".join(plots)}</div>'
        f'<h2>Samples</h2><img src="{escape(sheet)}" alt="masked, filled and target images">\n</html>\n'
    )


def table(scores: dict[str, dict[str, float]]) -> str:
    """An HTML table of scores, with a row for each fill and a column for each subset."""
    frame = pd.DataFrame(scores).T
    return frame.to_html(float_format="%.4f", na_rep="", border=0)


def plot(steps: pd.Series, values: pd.Series, title: str) -> str:
    """One curve as SVG. The same values give the same bytes, whatever style a matplotlibrc asks for."""
    with matplotlib.rc_context(dict(matplotlib.rcParamsDefault) | SVG):
        figure = Figure(figsize=(5.5, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.plot(steps, values, marker="." if len(values) < 50 else None)
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
