"""Everything that knows HTTP: sending, signing, repeating.

Public: `auth.ApiKeyAuth`, `auth.Auth`, `auth.BearerAuth`, `auth.NoAuth`, `auth.PortkeyAuth`.
"""
