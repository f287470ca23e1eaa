"""A model of the Hugging Face hub, or of a server that speaks like it, at one commit.

Two endpoints are used: `/api/models/{id}/revision/{revision}?blobs=true` for the listing, and
`/{id}/resolve/{commit}/{file}` for bytes. The second answers with a redirect to a signed URL of a
storage service, which is kept and used for all ranges of the file: the hub counts requests. The
token goes to the hub alone, never to where it redirects.
"""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

from shunt.model.errors import (
    ModelDamaged,
    ModelDenied,
    ModelError,
    ModelMissing,
    ModelUnavailable,
)
from shunt.model.listing import ModelFile, ModelListing, wanted_files
from shunt.retry import STORE_RETRY, RetryPolicy, call_with_retry

HUB_URL = "https://huggingface.co"
TIMEOUT_S = 30.0
_REDIRECTS = (301, 302, 303, 307, 308)
_DENIED = (401, 403)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing by itself: the token must not go where the hub points."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        del req, fp, code, msg, headers, newurl


class HubSource:
    """`revision` is a branch, a tag or a commit; the listing says which commit it is."""

    def __init__(
        self,
        model_id: str,
        *,
        revision: str = "main",
        token: str = "",
        url: str = HUB_URL,
        retry: RetryPolicy = STORE_RETRY,
    ) -> None:
        self._id = model_id
        self._revision = revision
        self._token = token
        self._url = url.rstrip("/")
        self._retry = retry
        self._open = urllib.request.build_opener(_Stay).open
        self._signed: dict[str, str] = {}
        """Where the hub said that a file's bytes are."""
        self._lock = threading.Lock()

    def listing(self) -> ModelListing:
        revision = urllib.parse.quote(self._revision, safe="")
        url = f"{self._url}/api/models/{self._id}/revision/{revision}?blobs=true"
        found = json.loads(self._retried(lambda: self._ask(url, {}, told=True)[1]))
        commit: str = found["sha"]
        files = wanted_files(_file(sibling) for sibling in found["siblings"])
        return ModelListing(kind="hub", place=self._id, commit=commit, files=files)

    def read_range(self, file: ModelFile, *, start: int, length: int) -> bytes:
        return self._retried(lambda: self._range(file.name, start, length))

    def _range(self, name: str, start: int, length: int) -> bytes:
        span = {"Range": f"bytes={start}-{start + length - 1}"}
        signed = self._signed.get(name)
        if signed is None:
            url = f"{self._url}/{self._id}/resolve/{self._revision}/{urllib.parse.quote(name)}"
            code, body, location = self._ask_where(url, span)
            if code not in _REDIRECTS:
                return self._exactly(name, code, body, start, length)
            signed = urllib.parse.urljoin(url, location)
            with self._lock:
                self._signed[name] = signed
        own = signed.startswith(f"{self._url}/")
        try:
            code, body = self._ask(signed, span, told=own)
        except ModelDenied as error:
            with self._lock:  # the signature is too old: the hub gives another one
                self._signed.pop(name, None)
            raise ModelUnavailable(self._place, f"{name}: a signed address was refused") from error
        return self._exactly(name, code, body, start, length)

    def _exactly(self, name: str, code: int, body: bytes, start: int, length: int) -> bytes:
        if code == 200:  # a server that has no ranges sends the whole file
            body = body[start : start + length]
        if len(body) != length:
            reason = f"{name}: {len(body)} of {length} bytes came from {start}"
            raise ModelUnavailable(self._place, reason)
        return body

    def _ask(self, url: str, headers: dict[str, str], *, told: bool) -> tuple[int, bytes]:
        code, body, location = self._ask_where(url, headers, told=told)
        hops = 0
        while code in _REDIRECTS:
            if (hops := hops + 1) > 5:
                raise ModelError(self._place, f"{url} redirects without end")
            url = urllib.parse.urljoin(url, location)
            own = url.startswith(f"{self._url}/")
            code, body, location = self._ask_where(url, headers, told=own)
        return code, body

    def _ask_where(
        self, url: str, headers: dict[str, str], *, told: bool = True
    ) -> tuple[int, bytes, str]:
        """Status, body, and where a redirect points. `told`: with the token."""
        if told and self._token:
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(url, headers=headers)
        try:
            with self._open(request, timeout=TIMEOUT_S) as reply:
                return reply.status, reply.read(), ""
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _REDIRECTS:
                    return error.code, b"", error.headers.get("Location", "")
                raise self._translated(error.code) from error
        except (OSError, HTTPException) as error:
            raise ModelUnavailable(
                self._place, f"the hub {self._url} gives no answer: {error}"
            ) from error

    def _translated(self, code: int) -> ModelError:
        if code in _DENIED:
            what = "with the token given" if self._token else "without a token"
            return ModelDenied(
                self._place,
                f"the hub does not let us read it {what} ({code}): name the variable that holds a "
                "token in model.token_env, and accept the model's terms where it is gated",
            )
        if code == 404:
            return ModelMissing(self._place, "the hub has no such model, revision or file")
        if code == 416:
            return ModelDamaged(self._place, "the hub's file is shorter than its listing says")
        if code in (408, 429) or code >= 500:
            return ModelUnavailable(self._place, f"the hub answers {code}")
        return ModelError(self._place, f"the hub answers {code}")

    def _retried(self, call: Callable[[], bytes]) -> bytes:
        return call_with_retry(call, policy=self._retry, transient=ModelUnavailable)

    @property
    def _place(self) -> str:
        return f"{self._id}@{self._revision}"


def _file(sibling: dict[str, Any]) -> ModelFile:
    """As the hub describes one: files of git-lfs by the sha256 of their bytes, others by git's."""
    lfs: dict[str, Any] = sibling.get("lfs") or {}
    digest = f"sha256:{lfs['sha256']}" if "sha256" in lfs else ""
    if not digest and sibling.get("blobId"):
        digest = f"git:{sibling['blobId']}"
    size = lfs.get("size", sibling.get("size"))
    return ModelFile(name=sibling["rfilename"], num_bytes=int(size or 0), digest=digest)
