"""What is done to bytes that were good: the same few ways for data sets, PDUs and bodies."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

#: (what, where, bytes): `set` overwrites, `add` inserts, `cut` ends there, `drop` and `twice` a few bytes there.
Mutation = tuple[str, int, bytes]

_TELLING = [
    *(b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xfe\xff\xff\xff", b"\0", b"\xff"),
    *(b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xe0\x7f\x10\x00", b"\x02\x00\x10\x00"),
    *(b"SQ", b"UN", b"OB", b"OW", b"UT", b"DS", b"FD", b"AT", b"??", b"\\\\\\", b"\x1b$B", b"-1", b"nan "),
]  # fmt: skip


def mutations(most: int = 5, reach: int = 1 << 16) -> st.SearchStrategy[list[Mutation]]:
    """Up to `most` of them, at bytes below `reach` (counted round the data)."""
    content = st.one_of(st.sampled_from(_TELLING), st.binary(min_size=1, max_size=12))
    what = st.sampled_from(["set", "set", "set", "add", "cut", "drop", "twice"])
    return st.lists(st.tuples(what, st.integers(0, reach), content), min_size=1, max_size=most)


def mutated(data: bytes, changes: Sequence[Mutation]) -> bytes:
    """The bytes after these mutations, one after the other."""
    for what, where, content in changes:
        if not data:
            break
        at, count = where % len(data), len(content)
        if what == "set":
            data = data[:at] + content + data[at + count :]
        elif what == "add":
            data = data[:at] + content + data[at:]
        elif what == "cut":
            data = data[:at]
        elif what == "drop":
            data = data[:at] + data[at + 4 * count :]
        else:
            data = data[: at + 16 * count] + data[at:]
    return data
