"""What wrk sends: scripts in Lua."""
from __future__ import annotations

from pathlib import Path

FIELDS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd", "Accept-Language": "en-US,en;q=0.9", "Cache-Control": "no-cache",
    "Cookie": "session=eyJ1c2VyIjoxMjM0NX0.abcdef; theme=dark; _ga=GA1.2.123456789.1700000000",
    "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin", "Upgrade-Insecure-Requests": "1", "Referer": "http://a.test/",
}
PAUSE_MS = 10

# 20,000 different visitors, made beforehand so that wrk only sends.
_VISITORS = """
local requests, at = {}, 0
init = function(args)
  math.randomseed(7)
  for i = 1, 20000 do
    local id = string.format("%08x%08x", math.random(0, 0x7fffffff), i)
    local fields = {}
    for name, value in pairs(wrk.headers) do fields[name] = value end
    fields["User-Agent"] = fields["User-Agent"]:gsub("Chrome/140", "Chrome/" .. (100 + i % 40))
    fields["Cookie"] = "session=" .. id .. id .. "; theme=dark; _ga=GA1.2." .. i .. ".1700000000"
    fields["Referer"] = "http://a.test/visit/" .. id
    requests[i] = wrk.format("GET", string.format("/visit/%s/%d?page=%d&ref=%s", id:sub(1, 6), i, i % 97, id), fields)
  end
end
request = function() at = at % 20000 + 1; return requests[at] end
"""


def write_scripts(folder: Path) -> None:
    """`fields.lua`: always the same request; `visitors.lua`: no two are alike; `pause.lua`: visitors that pause."""
    fields = "".join(f'wrk.headers["{name}"]="{value}"\n' for name, value in FIELDS.items())
    (folder / "fields.lua").write_text(fields)
    (folder / "visitors.lua").write_text(fields + _VISITORS)
    (folder / "pause.lua").write_text(f"{fields}{_VISITORS}function delay() return {PAUSE_MS} end\n")
