"""Google Cloud Storage over real HTTP, until standard input ends: moto's S3 server behind the XML API's own words.

    gcs.py FOLDER BUCKET

No server of Cloud Storage's XML API is to be had: what there is for tests speaks its JSON API. The XML API is that of S3 but for three
things, which are done here: preconditions are on generations (`x-goog-if-generation-match`; 0 for "there is none"), answers name the
generation, and requests carry a token that the service account has signed. Anything else that begins with `x-goog-` is refused, so that no
request passes that was not understood. Writes the account's key to FOLDER/account.json and prints its name as JSON.
"""

import base64
import json
import os
import sys
import threading
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

folder, bucket = sys.argv[1:]
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ACCOUNT = {"client_email": "publisher@example.com", "private_key_id": "key-1"}
# Who signs for S3 is of no interest to moto, but it asks for a name.
S3_USER = "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def generation(etag):
    """A number for an ETag: another one for other bytes."""
    return str(int(etag.strip('"').split("-")[0][:15], 16))


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def is_allowed(authorization):
    """RFC 7523: a token that the account itself has signed, for storage, that has not ended."""
    try:
        scheme, token = authorization.split(" ")
        head, claims, signature = token.split(".")
        key.public_key().verify(decoded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
        head, claims = json.loads(decoded(head)), json.loads(decoded(claims))
    except (ValueError, InvalidSignature):
        return False
    return (
        scheme == "Bearer"
        and head["alg"] == "RS256"
        and head["kid"] == ACCOUNT["private_key_id"]
        and claims["iss"] == ACCOUNT["client_email"]
        and claims["iat"] - 60 <= time.time() < claims["exp"]
        and claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    )


class Storage:
    """From the one's words to the other's and back."""

    def __init__(self):
        self.s3 = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ, start):
        def refused(status, code):
            body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]

        if not is_allowed(environ.get("HTTP_AUTHORIZATION", "")):
            return refused("401 Unauthorized", "AuthenticationRequired")
        environ["HTTP_AUTHORIZATION"] = S3_USER
        for name in [name for name in environ if name.startswith("HTTP_X_GOOG_")]:
            value, what = environ.pop(name), name.removeprefix("HTTP_X_GOOG_")
            if what.startswith("META_"):
                environ[f"HTTP_X_AMZ_{what}"] = value
            elif what == "IF_GENERATION_MATCH" and value == "0":
                environ["HTTP_IF_NONE_MATCH"] = "*"
            elif what == "IF_GENERATION_MATCH":
                etag = self.etag(environ)
                if etag is None or generation(etag) != value:
                    return refused("412 Precondition Failed", "PreconditionFailed")
                # Whoever comes in between is found out by the server behind.
                environ["HTTP_IF_MATCH"] = etag
            else:
                return refused("400 Bad Request", "InvalidArgument")

        def answer(status, headers, *rest):
            found = []
            for name, value in headers:
                if name.lower().startswith("x-amz-meta-"):
                    found.append((f"x-goog-meta-{name[11:]}", value))
                elif not name.lower().startswith("x-amz"):
                    found.append((name, value))
                if name.lower() == "etag":
                    found.append(("x-goog-generation", generation(value)))
            return start(status, found, *rest)

        return self.s3(environ, answer)

    def etag(self, environ):
        """The ETag of what is there now."""
        found = {}
        ask = {name: value for name, value in environ.items() if name not in ("CONTENT_LENGTH", "HTTP_IF_MATCH")}
        ask |= {"REQUEST_METHOD": "HEAD", "wsgi.input": open(os.devnull, "rb"), "CONTENT_LENGTH": "0"}
        for _ in self.s3(ask, lambda status, headers, *_: found.update(status=status, headers=dict(headers))):
            pass
        return found["headers"].get("ETag") if found["status"].startswith("200") else None


storage = Storage()
server = make_server("127.0.0.1", 0, storage, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.port}"
pem = key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
path = os.path.join(folder, "account.json")
with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
    json.dump({"type": "service_account", "private_key": pem, "gcs_base_url": endpoint, **ACCOUNT}, file)

made = []
environ = {
    "REQUEST_METHOD": "PUT", "PATH_INFO": f"/{bucket}", "QUERY_STRING": "", "HTTP_AUTHORIZATION": S3_USER, "HTTP_HOST": "127.0.0.1",
    "SERVER_NAME": "127.0.0.1", "SERVER_PORT": str(server.port), "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": "0",
    "wsgi.url_scheme": "http", "wsgi.input": open(os.devnull, "rb"), "wsgi.errors": sys.stderr,
}
for _ in storage.s3(environ, lambda status, headers, *_: made.append(status)):
    pass
assert made and made[0].startswith("200"), made
print(json.dumps({"account": path, "endpoint": endpoint}), flush=True)
sys.stdin.read()
server.shutdown()
