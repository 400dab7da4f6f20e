"""What the answers of an S3 server, and its silence, mean."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from sqlbak.errors import (
    AccessDenied,
    ObjectNotFound,
    PreconditionFailed,
    StoreFull,
    StoreThrottled,
    StoreUnreachable,
    UploadGone,
    VaultError,
    VaultUnusable,
)

__all__ = ["s3_error"]


# "Error responses" in the Amazon S3 API Reference, and what other servers add to it. Codes are
# looked at before the HTTP status: Ceph tells a full quota by 403, Amazon a slow client by 400.
_MEANING: dict[str, type[VaultError]] = {
    "NoSuchKey": ObjectNotFound,
    "NoSuchBucket": VaultUnusable,
    "NoSuchUpload": UploadGone,
    "PreconditionFailed": PreconditionFailed,
    "ConditionalRequestConflict": StoreThrottled,
    "OperationAborted": StoreThrottled,
    "SlowDown": StoreThrottled,
    "SlowDownRead": StoreThrottled,
    "SlowDownWrite": StoreThrottled,
    "TooManyRequests": StoreThrottled,
    "RequestLimitExceeded": StoreThrottled,
    "BandwidthLimitExceeded": StoreThrottled,
    "RequestTimeout": StoreUnreachable,
    "InternalError": StoreUnreachable,
    "ServiceUnavailable": StoreUnreachable,
    # The bytes were damaged on their way; they are whole in our hands.
    "BadDigest": StoreUnreachable,
    "IncompleteBody": StoreUnreachable,
    "XAmzContentSHA256Mismatch": StoreUnreachable,
    "XAmzContentChecksumMismatch": StoreUnreachable,
    "QuotaExceeded": StoreFull,
    "InsufficientStorage": StoreFull,
    "XMinioStorageFull": StoreFull,
    "XMinioAdminBucketQuotaExceeded": StoreFull,
    "AccountQuotaExceeded": StoreFull,
    "AccessDenied": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "ExpiredToken": AccessDenied,
    "InvalidToken": AccessDenied,
    "TokenRefreshRequired": AccessDenied,
    "RequestTimeTooSkewed": AccessDenied,
    "RequestExpired": AccessDenied,
    "InvalidObjectState": VaultUnusable,
}

_HINTS = {
    "NoSuchBucket": "make the bucket, or mend the vault's url; sqlbak makes no buckets",
    "RequestTimeTooSkewed": "this machine's clock and the store's differ by more than 15 minutes: "
    "synchronise this machine's clock",
    "ExpiredToken": "the session token has expired: obtain a new one",
    "InvalidAccessKeyId": "the store does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "InvalidObjectState": "the object lies in an archive tier: bring it back from there first",
}

_STATUS: dict[int, type[VaultError]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: ObjectNotFound,
    408: StoreUnreachable,
    409: StoreThrottled,  # a conditional write met another one: "retry the upload"
    412: PreconditionFailed,
    429: StoreThrottled,
    501: VaultUnusable,
    507: StoreFull,
}

# Rights that are not named like the operation ("Actions defined by Amazon S3").
_RIGHTS = {
    "HeadObject": "GetObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "DeleteObjects": "DeleteObject",
    "ListObjectsV2": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
}

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)


_AWAY = "check the vault's endpoint and the network between; the next run tries again"


def s3_error(error: Exception, action: str, key: str, bucket: str) -> VaultError:
    """The error of our tree for one that boto3 raised.

    ``action`` is the operation's name in the S3 API.
    """
    where = f"{action} of {key}" if key else action
    if isinstance(error, ClientError):
        return _answered(error, where, key, bucket)
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDenied(
            f"{where} in bucket {bucket}: no usable credentials ({_first_line(error)})",
            hint="give the vault an access key and a secret key, or set up boto3's default chain",
        )
    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return VaultUnusable(
            f"{where} in bucket {bucket}: the server's certificate is not trusted",
            hint="name the certificate authority of the store in the vault's ca_bundle",
        )
    if isinstance(error, BotoCoreError | ResponseParserError | HTTPError | OSError):
        return StoreUnreachable(f"{where} in bucket {bucket}: {_first_line(error)}", hint=_AWAY)
    raise error


def _answered(error: ClientError, where: str, key: str, bucket: str) -> VaultError:
    detail = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(detail.get("Code", status))
    kind = _MEANING.get(code)
    if kind is None and code.startswith("Throttl"):
        kind = StoreThrottled
    if kind is None:
        kind = _STATUS.get(status)
    if kind is None:
        kind = StoreUnreachable if status >= 500 else VaultUnusable
    if kind in (ObjectNotFound, PreconditionFailed, UploadGone):
        return kind(key)
    message = f"{where} in bucket {bucket}: the store answers {code}"
    if text := str(detail.get("Message", "")).strip():
        message += f" ({text})"
    return kind(message, hint=_HINTS.get(code) or _hint(kind, where, bucket))


def _hint(kind: type[VaultError], where: str, bucket: str) -> str:
    if kind is AccessDenied:
        action = where.partition(" ")[0]
        return f"the account needs the right to s3:{_RIGHTS.get(action, action)} in bucket {bucket}"
    if kind is StoreFull:
        return "free space or raise the quota of the bucket"
    if issubclass(kind, StoreUnreachable):
        return "the store has trouble or is overloaded; the next run tries again"
    return ""


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
