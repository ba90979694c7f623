"""What Pinpoint refuses, as it says it: https://docs.aws.amazon.com/pinpoint/latest/apireference/."""

from __future__ import annotations

STATUS_BY_CODE = {
    "BadRequestException": 400,
    "ForbiddenException": 403,
    "NotFoundException": 404,
    "MethodNotAllowedException": 405,
    "ConflictException": 409,
    "PayloadTooLargeException": 413,
    "TooManyRequestsException": 429,
    "InternalServerErrorException": 500,
}
"""HTTP status by the exception's name in botocore's model."""
CODE_BY_STATUS = {status: code for code, status in STATUS_BY_CODE.items()}


class PinpointError(Exception):
    """A refused request."""

    def __init__(self, code: str, message: str) -> None:
        """Name it.

        Args:
            code: A key of STATUS_BY_CODE.
            message: What the caller reads.
        """
        super().__init__(message)
        self.code = code
        self.status = STATUS_BY_CODE[code]


def bad_request(message: str) -> PinpointError:
    """400: the caller must change the request."""
    return PinpointError("BadRequestException", message)


def not_found(message: str = "Resource not found") -> PinpointError:
    """404: there is no such application, endpoint, user or path."""
    return PinpointError("NotFoundException", message)
