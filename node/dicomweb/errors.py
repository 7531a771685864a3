"""Why a request to the DICOMweb services is refused; the application turns them into HTTP (PS3.18 8.5)."""

from __future__ import annotations

from node.errors import Permanent


class BadRequest(Permanent):
    """The request is not one of the service's."""


class NotAcceptable(Permanent):
    """The object cannot be given in any form that the client accepts."""
