"""Takes a picture of a batch span and its links in the viewer: screenshot.py URL OPERATION FILE

Opens the largest trace that begins with a span of this name, and that span's references. Needs
`playwright` and `pillow` from PyPI and a Chromium: Debian's chromium-headless-shell, or
CHROMIUM=path.
"""
import io
import json
import os
import shutil
import sys
import urllib.request

from PIL import Image
from playwright.sync_api import sync_playwright

url, operation, file = sys.argv[1:]
chromium = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ["chromium-headless-shell", "chromium", "google-chrome"])))
with urllib.request.urlopen(f"{url}/api/traces?operation={operation}&limit=100") as answer:
    traces = json.load(answer)["data"]
trace = max(traces, key=lambda trace: len(trace["spans"]))["traceID"]
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1180, "height": 880})
    page.goto(f"{url}/trace/{trace}")
    page.get_by_text(operation).last.wait_for()
    page.locator(".span-row").first.click()
    for section in ["Tags:", "References"]:
        page.get_by_text(section).first.click()
    page.get_by_text("another trace").first.wait_for()
    picture = Image.open(io.BytesIO(page.screenshot()))
    browser.close()
picture.convert("RGB").quantize(64).save(file, optimize=True)  # a third of the bytes
print(f"{url}/trace/{trace}")
