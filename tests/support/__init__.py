"""What the tests of whole systems share: real daemons, waiting for processes, a relay that cuts connections."""
