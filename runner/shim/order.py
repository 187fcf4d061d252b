"""What a shim is to run, as a file: fields ended by NUL, which no path, argument or variable can contain."""


class Order:
    """The commands of an attempt. `grace` is in seconds."""

    def __init__(
        self, cookie: str, grace: float, folder: bytes, argv: list[bytes], environment: dict[bytes, bytes]
    ) -> None:
        """`folder` is where the commands start; `cookie` marks their processes; `argv` begins with an absolute path."""
        self.cookie, self.grace, self.folder = cookie, grace, folder
        self.argv, self.environment = argv, environment

    def to_bytes(self) -> bytes:
        """The file's content. Raises ValueError where a field contains NUL."""
        pairs = [name + b"=" + value for name, value in self.environment.items()]
        fields = [self.cookie.encode(), b"%f" % self.grace, self.folder, b"%d" % len(self.argv), *self.argv, *pairs]
        if any(b"\0" in field for field in fields):
            msg = "a path, command or variable contains a NUL character"
            raise ValueError(msg)
        return b"".join(field + b"\0" for field in fields)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Order":
        """Inverse of `to_bytes`."""
        cookie, grace, folder, count, *rest = data.split(b"\0")[:-1]
        pairs = [item.partition(b"=") for item in rest[int(count) :]]
        environment = {name: value for name, _, value in pairs}
        return cls(cookie.decode(), float(grace), folder, rest[: int(count)], environment)
