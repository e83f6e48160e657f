"""xiaozhi-trio: the voice server behind xiaozhi ESP32 devices."""

__version__ = "0.1.0"
