"""A web page in one file: no script, no network, and every text in it is escaped.

`element` makes HTML of a tag, attributes and what is inside. A plain string is text, whatever it
holds; only what `element` returned is HTML. `document` forbids the browser all but the page's own
style and the pictures inside it.
"""

import base64
import hashlib
import html
import io
from typing import Any

import numpy as np

STYLE = """
:root { color-scheme: light dark; font: 100%/1.45 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 100rem; padding: 0.5rem 1rem 3rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; }
h2 { font-size: 1.15rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
.runs { display: grid; gap: 0 2rem; }
.runs { grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
article { min-width: 0; }
.wide { overflow-x: auto; }
.wide:focus-visible { outline: 2px solid; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.15rem 0.9rem 0.15rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; white-space: pre; }
.pictures { display: grid; gap: 1rem 2rem; margin-top: 1.5rem; align-items: start; }
.pictures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0 0 1rem; min-width: 0; }
figcaption, .note { font-size: 0.85rem; opacity: 0.8; }
figure img { display: block; max-width: 100%; height: auto; }
.chart img { background: white; max-width: min(100%, 34rem); }
.pixels img, summary img { image-rendering: pixelated; }
.components { display: grid; gap: 0.5rem; grid-auto-flow: dense; }
.components { grid-template-columns: repeat(auto-fill, minmax(4.5rem, 1fr)); }
details { min-width: 0; }
details[open] { grid-column: 1 / -1; border: 1px solid; border-radius: 0.4rem; padding: 0.5rem; }
summary { cursor: pointer; font-size: 0.75rem; list-style: none; }
summary::-webkit-details-marker { display: none; }
summary:focus-visible { outline: 2px solid; }
summary img { display: block; width: 4.5rem; }
summary meter { width: 4.5rem; }
.pixels img { width: min(100%, 28rem); }
pre { overflow-x: auto; white-space: pre-wrap; font-size: 0.85rem; }
"""
VOID = ("img", "meta")  # elements that have no end


class Html(str):
    """Text that is HTML already."""


def element(_tag: str, *inside: Any, **attributes: Any) -> Html:
    """Makes <tag attributes>inside</tag>, all that is not `Html` escaped; class_ is class."""
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for name, value in attributes.items()
    )
    start = f"<{_tag}{shown}>"
    if _tag in VOID:
        return Html(start)
    return Html(start + "".join(map(_escaped, inside)) + f"</{_tag}>")


def _escaped(part: Any) -> str:
    return part if isinstance(part, Html) else html.escape(str(part))


def joined(*parts: Any) -> Html:
    """Puts parts one after the other, escaped as in `element`."""
    return Html("".join(map(_escaped, parts)))


def picture(png: bytes, description: str, **attributes: Any) -> Html:
    """Shows a PNG, held in the page."""
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    return element("img", src=source, alt=description, **attributes)


def png_of(canvas: np.ndarray) -> bytes:
    """Encodes an image [H, W, C] in [0, 1], grey or RGB, a pixel a pixel."""
    from PIL import Image

    pixels = np.round(255 * np.clip(canvas, 0, 1)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "png")
    return file.getvalue()


def table(rows: list[tuple[str, ...]], header: tuple[str, ...] = ()) -> Html:
    """Makes a table whose first column names the rows; one that is too wide scrolls by itself."""
    head = [element("tr", *(element("th", cell, scope="col") for cell in header))] if header else []
    body = [
        element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells))
        for name, *cells in rows
    ]
    return element("div", element("table", *head, *body), class_="wide", tabindex="0")


def document(title: str, *body: Html) -> bytes:
    """Makes the whole page, in UTF-8; letters that are none (of file names) as backslashes."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    page = element("html", head, element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n".encode("utf-8", "backslashreplace")
