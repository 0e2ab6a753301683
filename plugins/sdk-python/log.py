"""Lines for the trace of the call; the gateway bounds their number and length. Outside a component they are kept for tests."""

from collections.abc import Callable


class Log:
    def __init__(self) -> None:
        #: Lines that were written where there is no gateway: level and message.
        self.written: list[tuple[str, str]] = []
        self._write: Callable[[str, str], None] = lambda level, message: self.written.append((level, message))

    def to(self, write: Callable[[str, str], None]) -> None:
        """Called once, by the component."""
        self._write = write

    def debug(self, message: str) -> None:
        self._write("debug", message)

    def info(self, message: str) -> None:
        self._write("info", message)

    def warn(self, message: str) -> None:
        self._write("warn", message)

    def error(self, message: str) -> None:
        self._write("error", message)


log = Log()
