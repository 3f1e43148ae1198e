"""Shared by the tests of whole systems: real daemons, waiting for processes, a relay that cuts connections."""
