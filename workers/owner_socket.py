"""Unix sockets of this node that only their owner's processes may use, and the frames on them.

A frame is four bytes of length (big-endian), then JSON; file descriptors travel beside the length.
No pickle, nothing over TCP. The socket lies in a directory of mode 0700 and has mode 0600, and each
end asks the kernel for the other's user all the same: a mode can be changed, the answer cannot.
"""

import json
import os
import socket
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shunt.errors import ShuntError

MAX_FRAME_BYTES = 64 << 20
"""A manifest of a hundred thousand tensors has 20 MiB."""
MAX_DESCRIPTORS = 253
"""Of one message: SCM_MAX_FD of Linux."""
_LENGTH = struct.Struct("!I")
_CREDENTIALS = struct.Struct("3i")
"""Pid, user and group: SO_PEERCRED, unix(7)."""


class ChannelError(ShuntError):
    """The other end is not there, is not ours, or does not keep to the frames."""


def private_directory(prefix: str) -> Path:
    """A new directory that only this user may enter, short enough for a socket's name."""
    return Path(tempfile.mkdtemp(prefix=prefix))


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, which must not be there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def accept(listener: socket.socket, *, timeout_s: float) -> socket.socket:
    """The next client of our own user. Raises `ChannelError` for any other."""
    client, _ = listener.accept()
    return _checked(client, timeout_s)


def connect(path: Path, *, timeout_s: float) -> socket.socket:
    """Connected to our own user's listener. Raises `ChannelError`."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout_s)
    try:
        client.connect(str(path))
    except OSError as error:
        client.close()
        raise ChannelError(f"nobody answers at {path}: {error}") from error
    return _checked(client, timeout_s)


def _checked(end: socket.socket, timeout_s: float) -> socket.socket:
    end.settimeout(timeout_s)
    if (user := peer(end)[1]) != os.getuid():
        end.close()
        raise ChannelError(f"the other end belongs to user {user}, not to {os.getuid()}")
    return end


def peer(end: socket.socket) -> tuple[int, int]:
    """Pid and user of the process at the other end, by the kernel's word."""
    packed = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, user, _ = _CREDENTIALS.unpack(packed)
    return pid, user


def send(end: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one frame. Raises `ChannelError`."""
    body = json.dumps(message).encode()
    if len(body) > MAX_FRAME_BYTES or len(descriptors) > MAX_DESCRIPTORS:
        raise ChannelError(f"a frame of {len(body)} bytes, {len(descriptors)} descriptors")
    try:
        socket.send_fds(end, [_LENGTH.pack(len(body))], list(descriptors))
        end.sendall(body)
    except OSError as error:
        raise ChannelError(f"the other end is gone: {error}") from error


def receive(end: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next frame and its descriptors, which are the caller's to close.

    Raises `ChannelError`, also at the end of the stream.
    """
    try:
        packed, descriptors, _, _ = socket.recv_fds(end, _LENGTH.size, MAX_DESCRIPTORS)
    except OSError as error:
        raise ChannelError(f"the other end says nothing: {error}") from error
    try:
        return _body(end, packed), descriptors
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def _body(end: socket.socket, packed: bytes) -> dict[str, Any]:
    packed += _exactly(end, _LENGTH.size - len(packed))
    (length,) = _LENGTH.unpack(packed)
    if length > MAX_FRAME_BYTES:
        raise ChannelError(f"a frame of {length} bytes is announced")
    try:
        message = json.loads(_exactly(end, length))
    except ValueError as error:
        raise ChannelError(f"a frame is no JSON: {error}") from error
    if not isinstance(message, dict):
        raise ChannelError("a frame is no JSON object")
    return message


def _exactly(end: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        try:
            part = end.recv(count - len(data))
        except OSError as error:
            raise ChannelError(f"the other end says nothing: {error}") from error
        if not part:
            raise ChannelError("the other end is gone")
        data += part
    return bytes(data)
