"""Whether something listens at an address; asked before clients that would themselves try for minutes."""

import socket

from fer_ray.errors import FerRayError

CONNECT_S = 10.0


def require_answer(setting: str, host: str, port: int, kind: type[FerRayError], remedy: str) -> None:
    """Check that something listens at a TCP port.

    Args:
        setting: what names the address, and its value.
        kind: of error.
        remedy: the end of its message.

    Raises:
        FerRayError: nothing does, or there is no such host; of that kind.
    """
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise kind(f"{setting}: nothing answers there: {error.strerror or error}. {remedy}") from error
