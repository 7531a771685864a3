"""The figures as tables in Markdown, which people can read as text too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    shown = {
        "receive": _receive,
        "journey": _journey,
        "inference": _inference,
        "training": _training,
        "decode": _decode,
        "wado": _wado,
    }
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
    ran = {name: row for name, row in found["engines"].items() if "left_out" not in row}
    yield f"## Inference: {found['slices']} slices at the full window"
    yield ""
    figures: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("threads", lambda row: str(row["threads"])),
        ("model, ms a slice", lambda row: f"{row['model_ms']:.1f}"),
        ("its convolutions alone, float32, ms a slice", lambda row: f"{row['floor_ms']:.1f}"),
        ("model to floor", lambda row: f"{row['model_ms'] / row['floor_ms']:.2f}"),
        ("- limit", lambda row: f"{row['ratio_limit']:.1f}"),
        ("- of the floor: global network, ms a slice", lambda row: f"{row['floor_slice_ms']:.1f}"),
        ("- of the floor: patches, ms a volume", lambda row: f"{row['floor_patches_ms']:.0f}"),
        ("global network, GMAC a slice", lambda row: f"{row['slice_gmac']:.2f}"),
        ("its convolutions alone, GFLOP/s", lambda row: f"{row['floor_gflop_s']:.0f}"),
        ("window, GiB", lambda row: f"{row['window_gib']:.2f}"),
        ("peak memory above it (libraries included), GiB", lambda row: f"{row['above_window_gib']:.2f}"),
        ("- limit", lambda row: f"{row['memory_limit_gib']:.1f}"),
    ]  # fmt: skip
    yield from _table(
        ("figure", *ran), [(name, *map(show, ran.values())) for name, show in figures]
    )
    for name, row in found["engines"].items():
        if "left_out" in row:
            yield ""
            yield f"left out: {name}: {row['left_out']}"
    yield ""
    yield "bfloat16 against exact, largest differences; patches at the same place, and in the same order too:"
    yield ""
    yield from _table(
        ("case", "saliency", "y_global", "y_local", "y_final", "patches", "same", "in order"),
        [
            (
                row["case"],
                *(f"{row[n]:.4f}" for n in ("saliency_max", "global", "local", "final")),
                *(str(row[n]) for n in ("patches", "same_patches", "same_order")),
            )
            for row in found["drift"]
        ],
    )


def _training(found: dict[str, Any]) -> Iterator[str]:
    yield f"## Training step: one volume at the full window, {found['threads']} threads"
    yield ""
    few, many = found["slices"]
    yield from _table(
        ("figure", "value", "limit"),
        [
            (f"step on {many} slices, ms a slice", f"{found['ms']:.0f}", ""),
            ("three forwards of its convolutions alone, ms a slice", f"{found['floor_ms']:.0f}", ""),
            ("step to floor", f"{found['ms'] / found['floor_ms']:.2f}", f"{found['ratio_limit']:.1f}"),
            (f"memory added, {few} slices, MB", f"{found['mb_few']:.0f}", ""),
            (f"memory added, {many} slices, MB", f"{found['mb_many']:.0f}", ""),
            ("many to few", f"{found['mb_many'] / found['mb_few']:.2f}", f"{found['growth_limit']:.1f}"),
        ],
    )  # fmt: skip


def table1(found: dict[str, Any]) -> Iterator[str]:
    """Table I of the paper beside what was found here."""
    yield f"## Table I: a volume of 96 slices, from {', '.join(map(str, found['slices']))} slices"
    yield ""
    header = ["network", "GMAC", "paper", "training memory, MB", "paper", "memory is"]
    header += [f"on {found['gpu']}, MB"] if found["gpu"] else []
    rows = []
    for name, row in found["rows"].items():
        measured = "96" in map(str, row["mb"])
        paper_mb, paper_gmac = found["paper"].get(name, (None, None))
        figures = (row["gmac_96"], paper_gmac, row["mb_96"], paper_mb)
        cells = [name, *map(_known, figures), row["memory"] + (", all 96" if measured else "")]
        if found["gpu"]:
            cells.append(_known(row.get("gpu_mb_96")))
        rows.append(cells)
    yield from _table(header, rows)
    yield ""
    yield "by slices, GMAC and MB:"
    yield ""
    counts = list(next(iter(found["rows"].values()))["mb"])
    yield from _table(
        ("network", *(f"{count} slices" for count in counts)),
        [
            (name, *(f"{row['gmac'][n]:,.0f}, {row['mb'][n]:,.0f}" for n in counts))
            for name, row in found["rows"].items()
        ],
    )
    yield ""
    yield "memory counted, and resident in a step that ran, on a sixteenth of the area:"
    yield ""
    yield from _table(
        ("network", "counted, MB", "resident, MB"),
        [
            (name, f"{row['check_counted_mb']:,.0f}", f"{row['check_mb']:,.0f}")
            for name, row in found["rows"].items()
            if "check_mb" in row
        ],
    )


def _known(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _decode(found: dict[str, Any]) -> Iterator[str]:
    yield f"## Decoding: {found['frames']} frames, {found['decoded_mb']:.0f} MB decoded"
    yield ""
    reference = found["rows"]["JPEG 2000 Lossless"]["threads_1"]
    yield from _table(
        ("transfer syntax", "UID", "decoded to file", "a core, MB/s", "to JPEG 2000", "two, MB/s"),
        [
            (
                name,
                row["syntax"],
                f"{row['decoded_mb'] / row['file_mb']:.1f}",
                f"{row['threads_1']:.0f}",
                f"{row['threads_1'] / reference:.2f}",
                f"{row['threads_2']:.0f}",
            )
            for name, row in found["rows"].items()
        ],
    )


def _wado(found: dict[str, Any]) -> Iterator[str]:
    yield f"## WADO-RS: a frame of {found['frame_mb']:.1f} MB uncompressed, {found['frames']} of them"
    yield ""
    cases: dict[tuple[str, int, str], dict[str, dict[str, Any]]] = {}
    for row in found["rows"]:
        cases.setdefault((row["stored"], row["clients"], row["when"]), {})[row["server"]] = row
    yield from _table(
        ("stored", "clients", "caches", "node, p50 / p95 ms", "Orthanc, p50 / p95 ms", "node to Orthanc, p50"),
        [
            (stored, str(clients), when, *map(_latency, map(by.get, ("tomonode", "Orthanc"))), _quotient(by))
            for (stored, clients, when), by in cases.items()
        ],
    )  # fmt: skip
    for name, reason in found["left_out"].items():
        yield ""
        yield f"left out: {name}: {reason}"


def _latency(row: dict[str, Any] | None) -> str:
    return f"{row['p50_ms']:.1f} / {row['p95_ms']:.1f}" if row else ""


def _quotient(by: dict[str, dict[str, Any]]) -> str:
    if len(by) < 2:
        return ""
    return f"{by['tomonode']['p50_ms'] / by['Orthanc']['p50_ms']:.2f}"


def _table(header: Sequence[str], rows: Rows) -> Iterator[str]:
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for number, row in enumerate((header, *rows)):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 2) for width in widths)}|"
