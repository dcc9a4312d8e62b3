"""The outside world behind the Protocols of `portal.domain.ports`."""
