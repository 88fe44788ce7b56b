"""Everything that knows HTTP: it connects, signs, sends and retries.

Public: `auth.ApiKeyAuth`, `auth.Auth`, `auth.BearerAuth`, `auth.NoAuth`, `auth.PortkeyAuth`. The modules:

retry                repeats requests when that can do no harm
base                 what both transports share: settings, signing, URLs and headers
aiohttp              the transport over aiohttp, for every request
aiohttp_upload       the body of an upload, as aiohttp sends it
aiohttp_sessions     its sessions: chooses the connection, and keeps aiohttp from sending a request twice
httptools            the lean transport, over httptools; streams, files, proxies, borrowed sessions go to aiohttp
httptools_pool       its connections to one server
httptools_connection one of these: writes a request, and parses the answer
dialer               makes connections: addresses and TLS
inflate              decompresses bodies, up to a limit
auth                 the ways to sign requests
redaction            removes credentials from texts that are shown
urls                 the checks of base URLs and proxies
trust                whether pooled connections to a server may be used
failures             the errors for requests without an answer
unreachable          which of these errors waiting does not cure, and which setting to change
per_loop             what a client opens in each event loop, closed when the loop ends
"""
