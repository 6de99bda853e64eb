"""A connection to S3, MinIO or a compatible store, through minio's client: one persistent HTTP connection.

Opening it checks that the bucket exists, which requires the permission to list it.
"""

from __future__ import annotations

from io import BytesIO
from itertools import islice
from typing import Final
from urllib.parse import urlsplit

import gevent
import urllib3
from minio import Minio, S3Error
from minio.error import MinioException

from app.domain.service_calls import (
    DeleteObject,
    GetObject,
    HeadObject,
    ListObjects,
    ObjectInfo,
    Ping,
    PutObject,
)
from app.domain.service_errors import ConnectionLost, OperationRefused
from app.domain.services import ServiceSpec

_ONE_PART_BYTES: Final = 5 * 1024**3
"""Sends every object as one part, because the client would send several parts in threads."""
_PIECE_BYTES: Final = 1024 * 1024
_PAUSE_SECONDS: Final = 0.001
_ABSENT: Final = ("NoSuchKey", "NoSuchObject", "ResourceNotFound")


class S3Connection:
    """A ServiceConnection. Has a timeout only for connecting; a gevent.Timeout of the caller interrupts it."""

    def __init__(self, spec: ServiceSpec) -> None:
        """Connect and check that the bucket exists. Raises ConnectionLost."""
        settings = spec.settings
        self._bucket: str = settings["bucket"]
        self._max_bytes: int = settings["max_object_bytes"]
        self._http = urllib3.PoolManager(
            maxsize=1, retries=False, timeout=urllib3.Timeout(connect=spec.connect_timeout_seconds, read=None)
        )
        endpoint = urlsplit(settings["endpoint"])
        self._client = Minio(
            endpoint.netloc,
            access_key=settings["access_key"],
            secret_key=spec.secret("secret_key"),
            secure=endpoint.scheme == "https",
            region=settings["region"],
            http_client=self._http,
        )
        try:
            if not self._client.bucket_exists(self._bucket):
                raise ConnectionLost(f"there is no bucket {self._bucket}")
        except BaseException as error:
            self.close()
            if isinstance(error, MinioException | urllib3.exceptions.HTTPError | OSError):
                raise ConnectionLost(_reason(error)) from None
            raise

    def call(self, operation: object) -> object:
        try:
            return self._carry_out(operation)
        except S3Error as error:
            if error.code in _ABSENT and isinstance(operation, GetObject | HeadObject):
                return None
            raise OperationRefused(_reason(error)) from None
        except MinioException as error:
            raise OperationRefused(_reason(error)) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionLost(_reason(error)) from None
        except (TypeError, ValueError) as error:  # an invalid key
            raise OperationRefused(str(error)) from None

    def _carry_out(self, operation: object) -> object:
        match operation:
            case GetObject(key):
                return self._get(key)
            case PutObject(key, data, content_type):
                self._put(key, data, content_type)
                return None
            case DeleteObject(key):
                self._client.remove_object(self._bucket, key)
                return None
            case ListObjects(prefix, limit, after):
                found = self._client.list_objects(self._bucket, prefix, recursive=True, start_after=after or None)
                return [_info(one) for one in islice(found, limit)]
            case HeadObject(key):
                return _info(self._client.stat_object(self._bucket, key))
            case Ping():
                self._client.bucket_exists(self._bucket)
                return None
        raise OperationRefused(f"a storage does not support {type(operation).__name__}")

    def _get(self, key: str) -> bytes:
        response = self._client.get_object(self._bucket, key)
        try:
            data = bytearray()
            while piece := response.read(_PIECE_BYTES):
                data += piece
                if len(data) > self._max_bytes:  # Content-Length may be absent
                    raise OperationRefused(f"{key} has more than {self._max_bytes} bytes (max_object_bytes)")
                if len(piece) == _PIECE_BYTES:
                    gevent.sleep(_PAUSE_SECONDS)  # else data that has already arrived is read without yielding
            response.release_conn()
            return bytes(data)
        finally:
            response.close()  # discards unread data

    def _put(self, key: str, data: bytes, content_type: str) -> None:
        if len(data) > self._max_bytes:
            raise OperationRefused(f"{key} has more than {self._max_bytes} bytes (max_object_bytes)")
        self._client.put_object(
            self._bucket, key, BytesIO(data), len(data), content_type, part_size=_ONE_PART_BYTES, num_parallel_uploads=1
        )

    def is_stale(self) -> bool:
        return False  # the HTTP client detects it and reconnects

    def close(self) -> None:
        self._http.clear()


def _info(found: object) -> ObjectInfo:
    modified = found.last_modified  # type: ignore[attr-defined]
    return ObjectInfo(
        key=found.object_name,  # type: ignore[attr-defined]
        size_bytes=int(found.size or 0),  # type: ignore[attr-defined]
        etag=(found.etag or "").strip('"'),  # type: ignore[attr-defined]
        modified_at=modified.timestamp() if modified else 0.0,
        content_type=found.content_type,  # type: ignore[attr-defined]
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, S3Error):
        return f"{error.code}: {error.message}"
    return str(error) or repr(error)
