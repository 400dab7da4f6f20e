"""What differs between SQL Server 2016 and 2025 and matters here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Version:
    """``product`` as SERVERPROPERTY('ProductVersion'); ``database_version`` as stored in files
    ([D] "Hardware and software requirements"; 957 captured from SQL Server 2022)."""

    year: int
    product: str
    database_version: int
    compatibility: int

    @property
    def numbers(self) -> tuple[int, int, int]:
        major, minor, build, *_ = (int(part) for part in self.product.split("."))
        return major, minor, build

    @property
    def major(self) -> int:
        return self.numbers[0]

    @property
    def has_s3(self) -> bool:
        """TO URL = 's3://' came with 2022 ([D] backup to S3-compatible storage)."""
        return self.major >= 16

    @property
    def has_zstd(self) -> bool:
        return self.major >= 17

    @property
    def has_compression_algorithm(self) -> bool:
        """COMPRESSION (ALGORITHM = ..) and the last three columns of HEADERONLY: 2022."""
        return self.major >= 16


VERSIONS = {
    2016: Version(2016, "13.0.6455.2", 852, 130),
    2017: Version(2017, "14.0.3485.1", 869, 140),
    2019: Version(2019, "15.0.4415.2", 904, 150),
    2022: Version(2022, "16.0.4236.2", 957, 160),
    2025: Version(2025, "17.0.1000.7", 998, 170),
}
