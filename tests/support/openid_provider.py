"""An OpenID provider on the loopback, which can be told to lie in each way that matters."""

import base64
import hashlib
import json
import secrets
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from loopback import served

CLIENT, SECRET = "broker", "a secret of thirty-two characters"


class FakeProvider:
    """What it says, and to whom: `claims` of the person, `spoil` changes an ID token's claims."""

    def __init__(self, url):
        self.back = "http://testserver/account/openid/back"
        self.claims = {"sub": "248289761001", "email": "Ann@Example.org", "email_verified": True}
        self.in_token = ("sub", "email", "email_verified")
        self.info_of = None
        self.spoil = lambda claims: claims
        self.header, self.key = {"alg": "RS256"}, None
        self.move(url)
        self.codes, self.tokens = {}, set()
        self.new_key()

    def move(self, url):
        """Be known under another address."""
        self.url = url
        self.discovered = {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "userinfo_endpoint": f"{url}/userinfo",
            "jwks_uri": f"{url}/keys",
        }

    def new_key(self):
        self.own_key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4)}, private=True)

    def get(self, path, headers):
        if path == "/.well-known/openid-configuration":
            return self.discovered
        if path == "/keys":
            return {"keys": [self.own_key.as_dict(private=False)]}
        if path == "/userinfo" and headers["Authorization"].removeprefix("Bearer ") in self.tokens:
            return self.claims | ({"sub": self.info_of} if self.info_of else {})
        return None

    def authorize(self, query):
        """Return where the browser is sent after the person has agreed."""
        assert query["client_id"] == CLIENT
        assert query["redirect_uri"] == self.back
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        # Providers add what nobody asked for.
        return f"{self.back}?{urlencode({'code': code, 'state': query['state'], 'iss': self.url})}"

    def token(self, fields, headers):
        name, _, secret = (
            base64.b64decode(headers["Authorization"].removeprefix("Basic "))
            .decode()
            .partition(":")
        )
        asked = self.codes.pop(fields.get("code", ""), None)
        digest = hashlib.sha256(fields.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or (name, secret) != (CLIENT, SECRET):
            return 400, {"error": "invalid_grant"}
        if challenge != asked["code_challenge"] or fields["redirect_uri"] != self.back:
            return 400, {"error": "invalid_grant", "error_description": "not who asked"}
        now = int(time.time())
        claims = {
            "iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"],
            **{one: self.claims[one] for one in self.in_token if one in self.claims},
        }  # fmt: skip
        access = secrets.token_urlsafe(8)
        self.tokens.add(access)
        key = self.key or self.own_key
        header = self.header | ({"kid": key.kid} if key.kid else {})
        word = jwt.encode(header, self.spoil(claims), key, algorithms=[header["alg"]])
        return 200, {"access_token": access, "token_type": "Bearer", "id_token": word}

    def sign_with_the_secret(self):
        """Sign with the client's secret, which is no key of the provider's."""
        self.header, self.key = {"alg": "HS256"}, OctKey.import_key(SECRET)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        at = urlsplit(self.path)
        provider = self.server.provider
        if at.path == "/authorize":
            query = {k: v[0] for k, v in parse_qs(at.query).items()}
            self.send_response(302)
            self.send_header("Location", provider.authorize(query))
            self.end_headers()
            return
        found = provider.get(at.path, self.headers)
        self._say(404 if found is None else 200, found)

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        fields = {k: v[0] for k, v in parse_qs(text).items()}
        self._say(*self.server.provider.token(fields, self.headers))

    def _say(self, status, said):
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def openid_provider():
    """Give a provider that runs."""
    with served(_Handler) as server:
        server.provider = FakeProvider(f"http://127.0.0.1:{server.server_port}")
        yield server.provider
