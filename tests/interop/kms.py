"""A stand-in for AWS KMS over real HTTP: moto's server with a P-256 and an RSA key, until standard input ends.

Prints the URL of the endpoint and the ids of the keys.
"""

import sys

import boto3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from moto.kms.utils import ECDSAPrivateKey, RSAPrivateKey
from moto.server import ThreadedMotoServer


def sign(self, message, signing_algorithm):
    assert signing_algorithm == "ECDSA_SHA_256" and len(message) == 32, (signing_algorithm, len(message))
    return self.private_key.sign(message, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


def sign_rsa(self, message, signing_algorithm):
    assert signing_algorithm == "RSASSA_PSS_SHA_256" and len(message) == 32, (signing_algorithm, len(message))
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    return self.private_key.sign(message, pss, utils.Prehashed(hashes.SHA256()))


# moto does not implement MessageType DIGEST (it says so) and would hash the digest once more, as AWS does not.
ECDSAPrivateKey.sign = sign
RSAPrivateKey.sign = sign_rsa

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
endpoint = f"http://{host}:{port}"
kms = boto3.client(
    "kms", endpoint_url=endpoint, region_name="eu-central-1", aws_access_key_id="test", aws_secret_access_key="test"
)
specs = ["ECC_NIST_P256", "RSA_2048"]
keys = [kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"] for spec in specs]
print(endpoint, *keys, flush=True)
sys.stdin.read()
server.stop()
