"""What every part of the REST API shares: errors, permissions, strict serializers, keyset pages."""
