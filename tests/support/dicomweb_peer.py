"""A foreign DICOMweb client as a program: `python -m tests.support.dicomweb_peer URL FILE...`.

It is dicomweb-client, so what it stores and finds is what people's scripts would. Run it inside `loopback()`, where
servers that listen on every interface are.
"""

from __future__ import annotations

import sys

from pydicom import dcmread


def main(url: str, files: list[str]) -> None:
    """Store the files by STOW-RS; fails unless all are referenced in the answer."""
    from dicomweb_client.api import DICOMwebClient

    client = DICOMwebClient(url)
    answer = client.store_instances([dcmread(file) for file in files])
    stored = {item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence}
    if len(stored) != len(files):
        sys.exit(f"{len(stored)} of {len(files)} objects were stored")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
