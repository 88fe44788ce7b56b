"""Everything that knows HTTP: sending, signing, repeating."""
