"""The figures as tables in Markdown, which people can read as text too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Rows = Sequence[Sequence[str]]


def as_text(found: dict[str, Any]) -> str:
    """Everything that was measured."""
    machine = found["machine"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"Python {machine['python']}, no accelerator used; load at the start {machine['load_at_start']:.1f}; "
        f"{'quick run, ' if found['quick'] else ''}{found['seconds']:.0f} s"
    ]
    shown = {"receive": _receive, "journey": _journey, "inference": _inference, "decode": _decode}
    for part, show in shown.items():
        if part in found:
            lines += ["", *show(found[part])]
    return "\n".join(lines) + "\n"


def _receive(found: dict[str, Any]) -> Iterator[str]:
    size = found["large_bytes"] / 1e6 if found["rows"] else 0
    yield f"## Receiving: one object of {size:.0f} MB, four at once, {found.get('small_objects')} small ones"
    yield ""
    memory = "memory above idle, MB"
    header = ("receiver", "one, MB/s", "to ours", memory, "four, MB/s", memory, "small objects/s")
    ours = found["rows"].get("tomonode listener", {})
    yield from _table(
        header,
        [
            (
                name,
                f"{row['one_mb_s']:.0f} ({row['one_mb_s_lowest']:.0f}-{row['one_mb_s_highest']:.0f})",
                f"{row['one_mb_s'] / ours['one_mb_s']:.2f}" if ours else "",
                f"{row['one_peak_mb']:.0f}",
                f"{row['four_mb_s']:.0f}",
                f"{row['four_peak_mb']:.0f}",
                f"{row['small_per_s']:.0f}",
            )
            for name, row in found["rows"].items()
        ],
    )
    if "disk_mb_s" in found:
        yield ""
        yield f"the disk alone, write and fsync: {found['disk_mb_s']:.0f} MB/s"
    for name, reason in found["left_out"].items():
        yield ""
        yield f"left out: {name}: {reason}"


def _journey(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"## From the last byte to the delivered report: {found['views']} views of {found['slices']} slices, "
        f"{found['bytes'] / 1e6:.0f} MB"
    )
    yield ""
    stages = [(f"- of it {name}", f"{value:.2f}") for name, value in found["stages"].items()]
    rows: list[Sequence[str]] = [("sending, before the last byte", f"{found['sending']:.2f}")]
    for name, value in found["waits"].items():
        rows.append((name, f"{value:.2f}"))
        rows += stages if name == "claimed to succeeded" else []
    rows.append(("last byte to sent", f"{found['total']:.2f}"))
    yield from _table(("stage", "seconds"), rows)


def _inference(found: dict[str, Any]) -> Iterator[str]:
    yield f"## Inference: {found['slices']} slices at the full window, {found['threads']} threads"
    yield ""
    ratio = found["model_ms"] / found["floor_ms"]
    yield from _table(
        ("figure", "value"),
        [
            ("model, ms a slice", f"{found['model_ms']:.1f}"),
            ("its convolutions alone, ms a slice", f"{found['floor_ms']:.1f}"),
            ("model to floor", f"{ratio:.2f}"),
            ("- of the floor: global network, ms a slice", f"{found['floor_slice_ms']:.1f}"),
            (f"- of the floor: {found['patches']} patches, ms a volume", f"{found['floor_patches_ms']:.0f}"),
            ("global network, GMAC a slice", f"{found['slice_gmac']:.2f}"),
            ("its convolutions alone, GFLOP/s", f"{found['floor_gflop_s']:.0f}"),
            ("peak memory, MB (window and libraries included)", f"{found['peak_mb']:.0f}"),
        ],
    )  # fmt: skip


def _decode(found: dict[str, Any]) -> Iterator[str]:
    yield f"## Decoding: {found['frames']} frames, {found['decoded_mb']:.0f} MB decoded"
    yield ""
    yield from _table(
        ("transfer syntax", "file, MB", "one thread, MB/s", "two threads, MB/s"),
        [
            (name, f"{row['file_mb']:.1f}", f"{row['threads_1']:.0f}", f"{row['threads_2']:.0f}")
            for name, row in found["rows"].items()
        ],
    )


def _table(header: Sequence[str], rows: Rows) -> Iterator[str]:
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for number, row in enumerate((header, *rows)):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"
