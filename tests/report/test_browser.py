"""The page of a report in a real browser, where there is one: Chromium, without a network."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_renderings import poisoned

from samdec_export.report.document import Document
from samdec_export.report.html import to_html

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

PHONE, DESKTOP = 360, 1280

PROBE = """
<script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    page.querySelectorAll("details").forEach(fold => fold.open = true);
    const boxed = element => element.closest(".scroll, .long, pre");
    const wide = [...page.body.querySelectorAll("*")].filter(element =>
      !boxed(element) && element.getBoundingClientRect().right > root.clientWidth + 1);
    const letters = [...page.querySelectorAll("svg text")].filter(text => !boxed(text)).map(text =>
      parseFloat(frame.contentWindow.getComputedStyle(text).fontSize) *
      text.ownerSVGElement.getBoundingClientRect().width / text.ownerSVGElement.viewBox.baseVal.width);
    const outside = [...page.querySelectorAll("svg text")].filter(text => {
      const inner = text.getBoundingClientRect(), outer = text.ownerSVGElement.getBoundingClientRect();
      return inner.width && (inner.right > outer.right + 2 || inner.left < outer.left - 2);
    });
    return {
      width: root.clientWidth, needs: root.scrollWidth, wide: wide.map(element => element.outerHTML.slice(0, 200)),
      smallest: Math.min(...letters), outside: outside.map(text => text.textContent),
      pictures: [...page.images].every(image => image.complete && image.naturalWidth > 0),
      ground: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    };
  });
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.replaceChildren(out);
});
</script>
"""


def look(folder: Path, pages: list[tuple[str, int]], *options: str) -> list[dict[str, Any]]:
    """Open pages at widths, in CSS pixels, and measure them there."""
    frames = "".join(
        f'<iframe srcdoc="{html.escape(page)}" style="border:0;width:{width}px;height:900px"></iframe>'
        for page, width in pages
    )
    (folder / "probe.html").write_text(f"<!doctype html><meta charset=utf-8><body>{frames}{PROBE}", encoding="utf-8")
    command = [str(CHROMIUM), "--headless=new", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*command, *options, "--virtual-time-budget=5000", "--dump-dom", (folder / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    match = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stdout[-500:]
    found: list[dict[str, Any]] = json.loads(html.unescape(match[1]))
    return found


def test_the_page_fits_a_phone_and_a_desk(passing: Document, failing: Document, tmp_path: Path) -> None:
    pages = [to_html(document) for document in (passing, failing, poisoned(failing))]
    found = look(tmp_path, [(page, width) for page in pages for width in (PHONE, DESKTOP)])
    assert [page["width"] for page in found] == pytest.approx([PHONE, DESKTOP] * 3, abs=20), "less a scroll bar"
    for page in found:
        assert page["needs"] <= page["width"], "the page itself never scrolls sideways"
        assert page["wide"] == []
        assert page["pictures"]
        assert page["smallest"] >= 10
    for page in found[:4]:
        assert page["outside"] == [], "every text of a chart stands within it"


def test_the_page_follows_a_dark_desktop(passing: Document, tmp_path: Path) -> None:
    (light,) = look(tmp_path, [(to_html(passing), PHONE)])
    (dark,) = look(tmp_path, [(to_html(passing), PHONE)], "--blink-settings=preferredColorScheme=0")
    assert light["ground"] == "rgb(255, 255, 255)"
    assert dark["ground"] == "rgb(17, 22, 28)"
