"""What is changed of the configuration that Ray Serve writes for HAProxy, each time it does.

Ray has no settings for these, but it can be told which program to start as HAProxy. That is a wrapper which
corrects the file and then becomes HAProxy.
"""

from __future__ import annotations

from pathlib import Path

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""That are told apart in metrics."""
WRAPPER = """#!/bin/sh
# Ray's template binds HAProxy's metrics and statistics pages to every interface; this binds them to loopback.
# Ray also has it splice requests. HAProxy 2.8 then overlooks clients that leave while they wait for an
# answer, and keeps a core busy until the answer is there. Ray makes the method of each request a label of its
# metrics, and a method can be any word: those that nobody serves become one word, or they fill the memory.
previous=
for argument; do
  [ "$previous" = -f ] && sed -i -E \\
    -e 's/^( *bind) (:|\\*:)/\\1 127.0.0.1:/' -e '/^ *option splice-request$/d' \\
    -e 's/method=%HM/method=%[var(txn.method)]/' \\
    -e '/^frontend http_frontend$/a\\    http-request set-var(txn.method) str(OTHER)\\
    http-request set-var(txn.method) method if {{ method {methods} }}' "$argument"
  previous=$argument
done
exec "{binary}" "$@"
"""


def write_wrapper(file: Path, binary: str) -> Path:
    """Writes the wrapper of the HAProxy `binary` as a program, and gives its file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(WRAPPER.format(binary=binary, methods=" ".join(METHODS)))
    file.chmod(0o700)
    return file
