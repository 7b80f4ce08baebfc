"""The grammar of HTTP/1.1 as regular expressions over bytes, each after its ABNF."""
from __future__ import annotations

import re

# RFC 9110 5.6.2: token = 1*tchar
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# RFC 9110 5.5: VCHAR, obs-text, SP and HTAB. No other control byte: CR, LF and NUL end fields for some recipients.
VALUE = rb"[\t\x20-\x7e\x80-\xff]*"

token = re.compile(TOKEN)
value = re.compile(VALUE)
control = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# RFC 9112 5: field-name ":" OWS field-value OWS CRLF. No blank before the colon, no line folding. The surrounding blanks
# are taken off the value afterwards: one greedy class is far cheaper than a lazy one.
FIELD = rb"(" + TOKEN + rb"):[ \t]*(" + VALUE + rb")\r\n"
fields = re.compile(FIELD)
field_block = re.compile(rb"(?>" + TOKEN + rb":" + VALUE + rb"\r\n)*+")

# RFC 9112 3: method SP request-target SP HTTP-version. The target is checked for what no URI may hold (RFC 3986 2).
request_line = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")

# RFC 9112 4: HTTP-version SP status-code SP [ reason-phrase ]. Many servers leave out the last space with the phrase;
# nginx, HAProxy and Apache accept that.
status_line = re.compile(rb"HTTP/([0-9])\.([0-9]) ([1-9][0-9]{2})(?: (" + VALUE + rb"))?")

# RFC 9110 8.6: 1*DIGIT. Eighteen digits stay below 2^63.
length = re.compile(rb"[0-9]{1,18}")

# RFC 9112 7.1, 7.1.1: chunk-size [ chunk-ext ]. Sixteen digits could overflow 63 bits, and no honest sender needs them.
_EXTENSION = (rb"[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN
              + rb"|\"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*\"))?")
plain_chunk_size = re.compile(rb"[0-9A-Fa-f]{1,15}")
chunk_size = re.compile(rb"([0-9A-Fa-f]{1,15})(?:" + _EXTENSION + rb")*")
# A valid beginning of such a line, before its end has been received.
chunk_size_begun = re.compile(rb"[0-9A-Fa-f]{1,15}[ \t]*(?:;[\t \x21-\x7e\x80-\xff]*)?\r?")

# RFC 3986 3.2.2 and 3.2.3: host [ ":" port ], no user information (RFC 9110 4.2.4). The host is an IP literal in brackets or a
# registered name. A comma is not accepted: WSGI servers join two Hosts with it. An empty name is invalid (RFC 9110 4.2.1).
authority = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|\[v[0-9A-Fa-f]+\.[0-9A-Za-z\-._~!$&'()*+;=:]+\]|"
                       rb"(?:[0-9A-Za-z\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")

absolute_target = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)([^#]*)")
