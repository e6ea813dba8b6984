"""The HTML report in a real browser: no console message, no request, every chart visible, in both colour schemes."""

import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from jaxsec.audit import Report
from jaxsec.audit._html import html_of

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1200,1000"),
)
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    browser = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
    service = shutil.which("chromedriver")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        browser = None
    if browser is None or service is None:
        reason = "chromium, chromedriver and selenium are needed: apt-get install chromium chromium-driver; pip install selenium"
        if os.environ.get("JAXSEC_REQUIRE_DEVICES") or os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(service))
    yield chrome
    chrome.quit()


def requests_of(driver: Any) -> list[str]:
    """Addresses asked for since the last call, but for files, data, and the browser's own first tab."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [u for u in urls if not u.startswith(("file:", "data:", "chrome:"))]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 420)])
def test_the_page_is_quiet_whole_and_visible(driver: Any, saved: pathlib.Path, scheme: str, width: int) -> None:
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    driver.set_window_size(width, 1000)
    driver.get("about:blank")
    requests_of(driver)
    driver.get((saved / "report.html").as_uri())
    assert driver.get_log("browser") == []
    assert requests_of(driver) == []
    assert driver.execute_script("return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    sizes = driver.execute_script(
        "return [...document.querySelectorAll('svg.chart, img')].filter(e => e.getClientRects().length).map(e => {"
        " const b = e.getBoundingClientRect(); return [e.tagName, b.width, b.height, e.tagName == 'IMG' ? e.naturalWidth : 1]; })"
    )
    charts = [s for s in sizes if s[0] == "svg"]
    assert len(charts) == 5 and all(w > 200 and h > 100 for _, w, h, _ in charts)
    pictures = [s for s in sizes if s[0] == "IMG"]
    assert len(pictures) >= 3 and all(w > 20 and h > 20 and natural > 0 for _, w, h, natural in pictures)
    assert driver.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth + 1"), (
        "no sideways scrolling"
    )
    # text inside the charts must stand out from its panel: the contrast ratio of WCAG for the colours in use
    assert driver.execute_script(CONTRAST) >= 4.5


def test_every_chart_fits_a_phone_and_can_be_read(driver: Any, saved: pathlib.Path) -> None:
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True})
    try:
        driver.get((saved / "report.html").as_uri())
        seen = driver.execute_script(LETTERS)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert [key for key, *_ in seen] == ["chart-curve-narrow", "chart-classes", "chart-confusion", "chart-distance", "chart-queries"]
    for key, left, right, hidden, letter in seen:
        assert 0 <= left < right <= 390 and hidden <= 1, f"{key} is cut: {left} to {right}, {hidden} px to scroll"
        assert letter >= 8, f"{key} has letters of {letter} px"


# for each visible chart: its ends, how far its frame would scroll, and its smallest font in pixels of the page
LETTERS = """
return [...document.querySelectorAll('svg.chart')].filter(e => e.getClientRects().length).map(e => {
  const b = e.getBoundingClientRect(), scale = b.width / e.viewBox.baseVal.width, p = e.parentElement;
  const fonts = [...e.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize) * scale);
  return [e.id, b.left, b.right, p.scrollWidth - p.clientWidth, Math.min(...fonts)]; });
"""

CONTRAST = """
const rgb = c => c.match(/[0-9.]+/g).slice(0, 3).map(Number);
const light = c => { const [r, g, b] = rgb(c).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
const panel = getComputedStyle(document.querySelector('.panel')).backgroundColor;
const texts = [...document.querySelectorAll('svg.chart text')].map(e => getComputedStyle(e).fill);
const words = [...document.querySelectorAll('.tag, .id, small, summary, dd span, td, figcaption')].map(e => getComputedStyle(e).color);
return Math.min(...[...texts, ...words].map(c => ratio(c, panel)));
"""


@pytest.fixture(scope="module")
def widest(report: Report, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The report with the longest numbers that its curve can show."""
    data, folder = json.loads(json.dumps(report.data)), tmp_path_factory.mktemp("widest")
    for point in data["probes"]["certify"]["points"]:
        point["eps"] += 0.0012345
        for side in ("certified", "attacked", "undecided"):
            point[side] |= {"value": 1.0, "interval": [0.987, 1.0]}
    (folder / "report.html").write_text(html_of(data), encoding="utf-8")
    return folder


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["saved", "widest"])
def test_no_table_is_cut(driver: Any, request: pytest.FixtureRequest, which: str, width: int) -> None:
    saved: pathlib.Path = request.getfixturevalue(which)
    mobile = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 720}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", mobile)
    try:
        driver.get((saved / "report.html").as_uri())
        driver.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")
        hidden = driver.execute_script(
            "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
            ".map(e => e.textContent.slice(0, 80))"
        )
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert hidden == []
