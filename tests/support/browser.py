"""A real Chromium without a window, driven by selenium: what a user sees of the dashboard."""
from __future__ import annotations

import importlib.util
import shutil
from typing import Any

from tests.support.waiting import wait_until

SEEN_S = 20.0
_PATHS = {"chromium": shutil.which("chromium"), "chromedriver": shutil.which("chromedriver")}
_ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1440,900",
              "--no-proxy-server", "--no-first-run", "--disable-background-networking", "--disable-component-update")

_TEXTS = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent.trim())"


def missing() -> str:
    """What a browser needs and this machine lacks, with the way to it; "" when all is here."""
    lacking = [f"{name} is not here: apt-get install chromium chromium-driver" for name, path in _PATHS.items() if path is None]
    if importlib.util.find_spec("selenium") is None:
        lacking.append("selenium is not here: pip install selenium")
    return "; ".join(lacking)


class Browser:
    """One window. A context manager; the browser has ended behind it."""

    def __enter__(self) -> Browser:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(_PATHS["chromium"])
        for argument in _ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self._driver = webdriver.Chrome(options=options, service=Service(_PATHS["chromedriver"]))
        return self

    def __exit__(self, *exc: object) -> None:
        self._driver.quit()

    def open(self, url: str) -> None:
        """Load a page. What the one before it had to complain of is forgotten: its balancer may have gone meanwhile."""
        self._driver.get("about:blank")
        self.complaints()
        self._driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns that runs in the page."""
        return self._driver.execute_script(script, *arguments)

    def texts(self, selector: str) -> list[str]:
        """The text of all elements that a selector finds."""
        found: list[str] = self.run(_TEXTS, selector)
        return found

    def press(self, *keys: str) -> None:
        """Type at what has the focus: "d", "Enter"."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        chain = ActionChains(self._driver)
        for key in keys:
            chain.send_keys(getattr(Keys, key.upper()) if len(key) > 1 else key)
        chain.perform()

    def fill(self, name: str, text: str) -> None:
        """Write a text into a field of the dialog that is open, in place of what is there; the field has the focus then."""
        self.run('const field = document.querySelector(`dialog[open] [name="${arguments[0]}"]`); field.focus();'
                 "field.value = arguments[1]", name, text)

    def wait_for(self, selector: str, text: str) -> None:
        """Wait until the first element that a selector finds has a text in it."""
        wait_until(lambda: text in "".join(self.texts(selector)[:1]),
                   lambda: f"{text!r} in {selector}; there is {self.texts(selector)}, and {self.complaints()}", SEEN_S, every=0.1)

    def complaints(self) -> list[str]:
        """What the browser's console has of warnings and errors, since the page was opened, or it was last asked."""
        return [line["message"] for line in self._driver.get_log("browser") if line["level"] in ("WARNING", "SEVERE")]
